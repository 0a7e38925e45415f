//! The command line as a user meets it: through the built binary.
//!
//! | file | its part |
//! |---|---|
//! | `documents.rs` | every command the documents and the help show is run |
//! | `hostile.rs` | hostile names, files, links and numbers |
//! | `full.rs` | a disk with no room left |
//! | `locks.rs` | locks taken, kept, waited for, given back, broken; Ctrl-C |
//! | `run.rs` | the verb `run`: its lines, its command, its codes |
//! | `run_ends.rs` | the verb `run` when somebody dies or a lock is lost |
//! | `schema.rs` | the shape of every JSON answer |
//! | `shell.rs` | completions and manual pages |
//! | `simulate.rs` | the verb `simulate`: its table, its JSON, its exit codes |
//! | `start.rs` | the daemon: started by itself, replaced, served, looked after |
//! | `story.rs` | the story of two terminals, as the documents tell it |
//! | `support.rs` | a house of its own for each test |
//! | `tasks.rs` | claims of tasks |
//! | `terminal.rs` | what a terminal shows |
//! | `usage.rs` | help, version, and what is said to wrong usage |
//! | `views.rs` | what is shown: now, before, and as it happens |

mod documents;
mod full;
mod hostile;
mod locks;
mod run;
mod run_ends;
mod schema;
mod shell;
mod simulate;
mod start;
mod story;
mod support;
mod tasks;
mod terminal;
mod usage;
mod views;
