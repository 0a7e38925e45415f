//! What is said to whoever cannot be given what he asks for.

use lockkeeper::{
    CallError, StoreError, Unavailable,
    wire::{ErrorData, ErrorObject, code},
};

/// Bytes of a project's name.
const PROJECT_MAX: usize = 4096;

pub(crate) fn error(number: i64, word: &str, message: impl Into<String>) -> ErrorObject {
    let retryable = matches!(number, code::LIMIT | code::UNAVAILABLE);
    let (code, legacy_code) = (word.to_owned(), String::new());
    let data = ErrorData { code, legacy_code, retryable, refusal: None };
    ErrorObject { code: number, message: message.into(), data: Some(Box::new(data)) }
}

/// The parameters are not those of the method.
pub(crate) fn params(message: impl Into<String>) -> ErrorObject {
    error(code::INVALID_PARAMS, "invalid_params", message)
}

/// It is not a request.
pub(crate) fn request(message: impl Into<String>) -> ErrorObject {
    error(code::INVALID_REQUEST, "invalid_request", message)
}

/// A limit of the server is reached.
pub(crate) fn limit(message: impl Into<String>) -> ErrorObject {
    error(code::LIMIT, "limit", message)
}

/// Whoever asks may not.
pub(crate) fn forbidden(message: impl Into<String>) -> ErrorObject {
    error(code::FORBIDDEN, "forbidden", message)
}

/// A defect of ours.
pub(crate) fn internal(message: impl Into<String>) -> ErrorObject {
    error(code::INTERNAL, "internal", message)
}

pub(crate) fn unavailable(why: &Unavailable) -> ErrorObject {
    call(&CallError::Unavailable(why.clone()))
}

/// What a call came back with. That the manager is shut down means that this server is, and that
/// another one may follow.
pub(crate) fn call(error: &CallError) -> ErrorObject {
    match error {
        CallError::Unavailable(Unavailable::ShutDown) => stopping(),
        other => other.into(),
    }
}

/// The server ends.
pub(crate) fn stopping() -> ErrorObject {
    error(
        code::UNAVAILABLE,
        "stopping",
        "the daemon is stopping: what is held is kept, and so is the place in a queue; connect \
         again, and ask again with the same request id",
    )
}

pub(crate) fn check_project(name: &str) -> Result<(), ErrorObject> {
    match name.len() {
        0 => Err(params("`project` is empty: name the project the request is about")),
        bytes if bytes > PROJECT_MAX => {
            Err(params(format!("`project` has {bytes} bytes, {PROJECT_MAX} are allowed")))
        }
        _ => Ok(()),
    }
}

/// The store cannot be asked.
pub(crate) fn store(error: &StoreError) -> ErrorObject {
    match error {
        StoreError::Closed => stopping(),
        error => unavailable(&Unavailable::NotServing(error.clone())),
    }
}
