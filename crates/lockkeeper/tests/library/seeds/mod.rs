//! What the users of the earlier lock registries rely on, and what each of those got wrong, case by
//! case. The number in a name is the section of the survey that the case comes from; the cases of
//! section 6 are those that all of them failed or lacked.

mod code_chef;
mod demiarch;
mod exarp;
mod semad;
mod shared;
