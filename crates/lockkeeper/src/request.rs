//! Requests: builders that can be awaited. A request that is dropped before it is done is taken
//! back, at whatever point that happens.

use crate::{
    error::{AcquireError, CallError, ConvertError, TaskError, Unavailable},
    guard::{LockGuard, LockGuards, unexpected},
    session::Owner,
    task::TaskGuard,
    told::Told,
};
use lockkeeper_core::{
    Acquire, AcquireAll, Answer, AskOptions, Cancel, CancelTarget, ClaimTasks, Command, LockMode,
    RequestId, Resource, Upgrade,
};
use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

/// What awaiting a request gives.
pub type RequestFuture<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Takes a request back if it is dropped before it is done.
struct TakeBack<'a> {
    owner: &'a Arc<Owner>,
    request: RequestId,
    armed: bool,
}

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        if self.armed {
            let target = CancelTarget::Request(self.request);
            self.owner.owe(Cancel { session: self.owner.session(), target }.into());
        }
    }
}

/// Asks for something that may wait. If nobody awaits the answer any more, the place in the queue
/// is given up, and what was granted meanwhile is released: the guards in an answer that nobody
/// takes release themselves, and of the two only the first one counts.
async fn ask(owner: &Arc<Owner>, request: RequestId, command: &Command) -> Result<Told, CallError> {
    let mut take_back = TakeBack { owner, request, armed: true };
    let mut tries = 0;
    let told = owner.tell_me(command, &mut tries).await;
    // What was not even tried needs not be taken back; what failed may have been done all the same.
    take_back.armed = match &told {
        Err(CallError::Unavailable(Unavailable::NotServing(_))) => tries > 1,
        Err(CallError::Unavailable(_)) => true,
        _ => false,
    };
    told
}

macro_rules! options {
    () => {
        /// How long to queue.
        pub fn wait(mut self, wait: Duration) -> Self {
            self.options.wait = Some(wait);
            self
        }

        /// Now or never.
        pub fn no_wait(self) -> Self {
            self.wait(Duration::ZERO)
        }

        /// How long the hold lives unless renewed.
        pub fn lease(mut self, lease: Duration) -> Self {
            self.options.lease = Some(lease);
            self
        }

        /// For people: why.
        pub fn reason(mut self, reason: impl Into<Arc<str>>) -> Self {
            self.options.reason = Some(reason.into());
            self
        }

        /// For programs: what to note beside the hold.
        pub fn metadata(mut self, metadata: &serde_json::Value) -> Self {
            self.options.metadata = Some(metadata.to_string().into());
            self
        }

        /// Weighs this wait in a deadlock, -10 to 10: the lowest loses.
        pub fn priority(mut self, priority: i8) -> Self {
            self.options.priority = Some(priority);
            self
        }

        /// A name for the request: asking again with it changes nothing. Whoever drops the
        /// request before it is done takes it back, and with it the name.
        pub fn request_id(mut self, request: RequestId) -> Self {
            self.options.request_id = Some(request);
            self
        }
    };
}

/// A request for one lock. Await it. Where a future is asked for, as in `select!`, wrap it:
/// `async { request.await }`.
#[must_use = "a request does nothing until it is awaited"]
pub struct AcquireRequest {
    owner: Arc<Owner>,
    resource: Resource,
    mode: LockMode,
    options: AskOptions,
    keep_alive: bool,
}

impl AcquireRequest {
    pub(crate) fn new(owner: Arc<Owner>, resource: Resource, mode: LockMode) -> AcquireRequest {
        let options = AskOptions::default();
        AcquireRequest { owner, resource, mode, options, keep_alive: false }
    }

    options!();

    /// Together with other readers.
    pub fn shared(self) -> Self {
        self.mode(LockMode::Shared)
    }

    /// Beside readers, with the right to become the only one later.
    pub fn update(self) -> Self {
        self.mode(LockMode::Update)
    }

    /// Alone: the default.
    pub fn exclusive(self) -> Self {
        self.mode(LockMode::Exclusive)
    }

    /// One of the slots of a resource with a capacity.
    pub fn permit(self) -> Self {
        self.permits(1)
    }

    /// So many of the slots of a resource with a capacity.
    pub fn permits(self, count: u32) -> Self {
        self.mode(LockMode::Permit(count))
    }

    /// In this mode.
    pub fn mode(mut self, mode: LockMode) -> Self {
        self.mode = mode;
        self
    }

    /// If the session holds it already in a mode that covers this one, counts the hold up instead
    /// of refusing.
    pub fn reentrant(mut self) -> Self {
        self.options.reentrant = true;
        self
    }

    /// Renews the lease by itself for as long as the guard lives.
    pub fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    /// Everything that can be done before the first await is, so that the future is small.
    fn run(self) -> impl Future<Output = Result<LockGuard, AcquireError>> + Send {
        let AcquireRequest { owner, resource, mode, mut options, keep_alive } = self;
        options.fleeting = options.request_id.is_none();
        let request = *options.request_id.get_or_insert_with(|| owner.next_request());
        let command = Command::from(Acquire { session: owner.session(), resource, mode, options });
        async move {
            match ask(&owner, request, &command).await? {
                Told::Guard(guard) => {
                    if keep_alive {
                        guard.keep_alive();
                    }
                    Ok(guard)
                }
                _ => Err(CallError::from(unexpected(&Answer::Ticked)).into()),
            }
        }
    }
}

impl IntoFuture for AcquireRequest {
    type Output = Result<LockGuard, AcquireError>;
    type IntoFuture = RequestFuture<'static, LockGuard, AcquireError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for AcquireRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireRequest")
            .field("resource", &self.resource)
            .field("mode", &self.mode)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A request for several locks, all or nothing. Await it.
#[must_use = "a request does nothing until it is awaited"]
pub struct AcquireAllRequest {
    owner: Arc<Owner>,
    wants: Vec<(Resource, LockMode)>,
    options: AskOptions,
    keep_alive: bool,
}

impl AcquireAllRequest {
    pub(crate) fn new(owner: Arc<Owner>, wants: Vec<(Resource, LockMode)>) -> AcquireAllRequest {
        AcquireAllRequest { owner, wants, options: AskOptions::default(), keep_alive: false }
    }

    options!();

    /// All of them together with other readers.
    pub fn shared(mut self) -> Self {
        for (_, mode) in &mut self.wants {
            *mode = LockMode::Shared;
        }
        self
    }

    /// Counts holds up that the session has already.
    pub fn reentrant(mut self) -> Self {
        self.options.reentrant = true;
        self
    }

    /// Renews the leases by themselves for as long as the guards live.
    pub fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    async fn run(self) -> Result<LockGuards, AcquireError> {
        let AcquireAllRequest { owner, wants, mut options, keep_alive } = self;
        let request = *options.request_id.get_or_insert_with(|| owner.next_request());
        let command = AcquireAll { session: owner.session(), wants, options };
        let guards = match ask(&owner, request, &command.into()).await? {
            Told::Guard(guard) => Ok(vec![guard]),
            Told::Guards(guards) => Ok(guards),
            _ => Err(CallError::from(unexpected(&Answer::Ticked))),
        }?;
        if keep_alive {
            guards.iter().for_each(LockGuard::keep_alive);
        }
        Ok(LockGuards::new(guards))
    }
}

impl IntoFuture for AcquireAllRequest {
    type Output = Result<LockGuards, AcquireError>;
    type IntoFuture = RequestFuture<'static, LockGuards, AcquireError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for AcquireAllRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireAllRequest")
            .field("wants", &self.wants)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A request to turn a hold exclusive. Await it.
#[must_use = "a request does nothing until it is awaited"]
#[derive(Debug)]
pub struct UpgradeRequest<'a> {
    guard: &'a mut LockGuard,
    options: AskOptions,
}

impl<'a> UpgradeRequest<'a> {
    pub(crate) fn new(guard: &'a mut LockGuard) -> UpgradeRequest<'a> {
        UpgradeRequest { guard, options: AskOptions::default() }
    }

    /// How long to queue.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.options.wait = Some(wait);
        self
    }

    /// Now or never.
    pub fn no_wait(self) -> Self {
        self.wait(Duration::ZERO)
    }

    /// Weighs this wait in a deadlock, -10 to 10: the lowest loses.
    pub fn priority(mut self, priority: i8) -> Self {
        self.options.priority = Some(priority);
        self
    }

    async fn run(self) -> Result<(), ConvertError> {
        let UpgradeRequest { guard, mut options } = self;
        let owner = guard.owner();
        let request = *options.request_id.get_or_insert_with(|| owner.next_request());
        let upgrade = Upgrade { session: owner.session(), lock: guard.id(), options };
        match ask(owner, request, &upgrade.into()).await? {
            // The desk has told the guard.
            Told::Answer(Answer::Changed(_)) => Ok(()),
            _ => Err(CallError::from(unexpected(&Answer::Ticked)).into()),
        }
    }
}

impl<'a> IntoFuture for UpgradeRequest<'a> {
    type Output = Result<(), ConvertError>;
    type IntoFuture = RequestFuture<'a, (), ConvertError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A claim of one task, now or never. Await it.
#[must_use = "a request does nothing until it is awaited"]
#[derive(Debug)]
pub struct ClaimRequest {
    batch: ClaimBatchRequest,
}

impl ClaimRequest {
    pub(crate) fn new(owner: Arc<Owner>, task: Resource) -> ClaimRequest {
        ClaimRequest { batch: ClaimBatchRequest::new(owner, vec![task]) }
    }

    /// How long the claim lives unless renewed.
    pub fn lease(self, lease: Duration) -> Self {
        ClaimRequest { batch: self.batch.lease(lease) }
    }

    /// For people: why.
    pub fn reason(self, reason: impl Into<Arc<str>>) -> Self {
        ClaimRequest { batch: self.batch.reason(reason) }
    }

    /// For programs: what to note beside the claim.
    pub fn metadata(self, metadata: &serde_json::Value) -> Self {
        ClaimRequest { batch: self.batch.metadata(metadata) }
    }

    /// A name for the request: asking again with it changes nothing.
    pub fn request_id(self, request: RequestId) -> Self {
        ClaimRequest { batch: self.batch.request_id(request) }
    }

    /// Only if the task is still at the version that was seen.
    pub fn expect_version(mut self, version: u64) -> Self {
        for claim in &mut self.batch.claims {
            claim.expect_version = Some(version);
        }
        self
    }

    /// Renews the lease by itself for as long as the claim lives.
    pub fn keep_alive(self) -> Self {
        ClaimRequest { batch: self.batch.keep_alive() }
    }

    async fn run(self) -> Result<TaskGuard, TaskError> {
        let mut claims = self.batch.run().await?;
        match claims.pop() {
            Some(claim) if claims.is_empty() => Ok(claim),
            _ => Err(CallError::from(unexpected(&Answer::Ticked)).into()),
        }
    }
}

impl IntoFuture for ClaimRequest {
    type Output = Result<TaskGuard, TaskError>;
    type IntoFuture = RequestFuture<'static, TaskGuard, TaskError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A claim of several tasks, all or nothing, now or never. Await it.
#[must_use = "a request does nothing until it is awaited"]
pub struct ClaimBatchRequest {
    owner: Arc<Owner>,
    claims: Vec<lockkeeper_core::TaskClaim>,
    options: AskOptions,
    keep_alive: bool,
}

impl ClaimBatchRequest {
    pub(crate) fn new(owner: Arc<Owner>, tasks: Vec<Resource>) -> ClaimBatchRequest {
        let claim = |task| lockkeeper_core::TaskClaim { task, expect_version: None };
        let claims = tasks.into_iter().map(claim).collect();
        ClaimBatchRequest { owner, claims, options: AskOptions::default(), keep_alive: false }
    }

    /// How long the claim lives unless renewed.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = Some(lease);
        self
    }

    /// For people: why.
    pub fn reason(mut self, reason: impl Into<Arc<str>>) -> Self {
        self.options.reason = Some(reason.into());
        self
    }

    /// For programs: what to note beside the claim.
    pub fn metadata(mut self, metadata: &serde_json::Value) -> Self {
        self.options.metadata = Some(metadata.to_string().into());
        self
    }

    /// A name for the request: asking again with it changes nothing.
    pub fn request_id(mut self, request: RequestId) -> Self {
        self.options.request_id = Some(request);
        self
    }

    /// Only if a task is still at the version that was seen. Names a task of this claim.
    pub fn expect_version(mut self, task: &str, version: u64) -> Self {
        let task = Resource::task(task);
        for claim in self.claims.iter_mut().filter(|claim| claim.task == task) {
            claim.expect_version = Some(version);
        }
        self
    }

    /// Renews the leases by themselves for as long as the claims live.
    pub fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    async fn run(self) -> Result<Vec<TaskGuard>, TaskError> {
        let ClaimBatchRequest { owner, claims, mut options, keep_alive } = self;
        let request = *options.request_id.get_or_insert_with(|| owner.next_request());
        let command = ClaimTasks { session: owner.session(), claims, options };
        match ask(&owner, request, &command.into()).await? {
            Told::Tasks(tasks) => {
                if keep_alive {
                    tasks.iter().for_each(|(_, guard)| guard.keep_alive());
                }
                Ok(tasks.into_iter().map(|(task, guard)| TaskGuard::new(task, guard)).collect())
            }
            _ => Err(CallError::from(unexpected(&Answer::Ticked)).into()),
        }
    }
}

impl IntoFuture for ClaimBatchRequest {
    type Output = Result<Vec<TaskGuard>, TaskError>;
    type IntoFuture = RequestFuture<'static, Vec<TaskGuard>, TaskError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for ClaimBatchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimBatchRequest").field("claims", &self.claims).finish_non_exhaustive()
    }
}
