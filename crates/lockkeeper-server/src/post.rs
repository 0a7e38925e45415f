//! Wakes many tasks at the price of one.
//!
//! A commit answers many calls, on the store's thread. To wake a task of the runtime from there is
//! a call of the system each time, and a sleeping thread that wakes up. So tasks that wait for the
//! store are woken by a postman, a task among them: he is woken once, and carries all the rest.

use futures_util::task::AtomicWaker;
use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Wake, Waker},
};
use tokio::{runtime::Handle, sync::mpsc};

/// Where tasks are left to be woken.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    letters: mpsc::UnboundedSender<Arc<Door>>,
}

/// A task, as it is woken.
#[derive(Debug)]
struct Door {
    task: AtomicWaker,
    post: Post,
}

impl Post {
    /// Sends the postman on his way. He goes home when nobody has the post any more.
    pub(crate) fn start() -> Post {
        let (letters, mut bag) = mpsc::unbounded_channel::<Arc<Door>>();
        tokio::spawn(async move {
            while let Some(door) = bag.recv().await {
                door.task.wake();
            }
        });
        Post { letters }
    }

    /// The same as a task would be that the postman wakes.
    pub(crate) async fn reach<F: Future>(self, task: F) -> F::Output {
        let mut task = pin!(task);
        let door = Arc::new(Door { task: AtomicWaker::new(), post: self });
        let waker = Waker::from(door.clone());
        poll_fn(|context| {
            door.task.register(context.waker());
            task.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }
}

impl Wake for Door {
    fn wake(self: Arc<Door>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Door>) {
        // Whoever is in the runtime wakes its tasks for nothing.
        if Handle::try_current().is_ok() || self.post.letters.send(self.clone()).is_err() {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };
    use tokio::sync::oneshot;

    /// Counts how often a task is polled.
    async fn counting<F: Future>(count: &AtomicUsize, task: F) -> F::Output {
        let mut task = pin!(task);
        poll_fn(|context| {
            count.fetch_add(1, Ordering::Relaxed);
            task.as_mut().poll(context)
        })
        .await
    }

    #[test]
    fn all_that_is_woken_elsewhere_in_one_go_is_woken_and_nobody_twice() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let polled = Arc::new(AtomicUsize::new(0));
        runtime.block_on(async {
            let post = Post::start();
            let (mut tells, mut tasks) = (Vec::new(), Vec::new());
            for _ in 0..100 {
                let (tell, told) = oneshot::channel();
                let (post, polled) = (post.clone(), polled.clone());
                tells.push(tell);
                tasks.push(tokio::spawn(async move { counting(&polled, post.reach(told)).await }));
            }
            while polled.load(Ordering::Relaxed) < 100 {
                tokio::task::yield_now().await;
            }
            // The runtime stands still meanwhile: whatever is woken is woken afterwards.
            let elsewhere = thread::spawn(move || {
                tells.into_iter().enumerate().for_each(|(at, tell)| tell.send(at).unwrap());
            });
            elsewhere.join().unwrap();
            for (at, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.unwrap().unwrap(), at);
            }
        });
        assert_eq!(polled.load(Ordering::Relaxed), 200);
    }

    #[tokio::test]
    async fn what_is_woken_here_is_woken_at_once_and_also_without_a_postman() {
        let (letters, bag) = mpsc::unbounded_channel();
        let post = Post { letters };
        let (tell, told) = oneshot::channel();
        let here = tokio::spawn(post.clone().reach(told));
        tokio::task::yield_now().await;
        tell.send(1).unwrap();
        assert_eq!(here.await.unwrap(), Ok(1));
        assert!(bag.is_empty());
        drop(bag);
        let (tell, told) = oneshot::channel();
        let there = tokio::spawn(post.reach(told));
        tokio::task::yield_now().await;
        thread::spawn(move || tell.send(2).unwrap()).join().unwrap();
        assert_eq!(there.await.unwrap(), Ok(2));
    }
}
