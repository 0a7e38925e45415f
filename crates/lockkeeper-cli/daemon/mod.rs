//! The daemon, as the verbs see it.
//!
//! | file | its part |
//! |---|---|
//! | `care.rs` | the verbs `stop` and `migrate` |
//! | `desk.rs` | asks it, and asks again when it was gone for a moment |
//! | `doctor.rs` | the verb `doctor` |
//! | `link.rs` | finds it |
//! | `log.rs` | its log, which does not grow for ever |
//! | `look.rs` | asks it, or the store at rest, what things are like; starts and changes nothing |
//! | `serve.rs` | the verb `serve`: being it |
//! | `start.rs` | starts it, and lets a newer one take over |

pub(crate) mod care;
pub(crate) mod desk;
pub(crate) mod doctor;
pub(crate) mod link;
pub(crate) mod log;
pub(crate) mod look;
pub(crate) mod serve;
pub(crate) mod start;
