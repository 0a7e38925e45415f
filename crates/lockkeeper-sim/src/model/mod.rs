//! The naive model: the lock table written a second time, slowly and plainly.
//!
//! It keeps three lists (sessions, holds, waits), takes the numbers that the table mints from the
//! table's records, and decides everything else by itself. Every fact of a turn must be *owed*: by
//! the command, by a deadline that passed, by the rule of granting, or by a verdict. And at the end
//! of the turn nothing may be owed any more.
//!
//! | file | |
//! |---|---|
//! | `invariant` | the promises by name |
//! | `rules` | modes, the rule of granting, the orders of victims |
//! | `state` | what the model knows |
//! | `decide`, `asks`, `changes`, `tasks` | what a command is due to do |
//! | `owed` | what is due in a turn |
//! | `follow` | the walk along a turn |
//! | `facts`, `grants`, `verdict` | whether a fact is owed, and what it changes |
//! | `upkeep` | what follows from a fact by itself |
//! | `graph` | who waits for whom, in full; reduction |
//! | `rest` | what holds between turns |
//! | `compare` | the model beside the table's views |
//! | `shape` | a state without its numbers, to tell whether it was seen before |

mod asks;
mod changes;
mod compare;
mod decide;
mod facts;
mod follow;
mod grants;
mod graph;
mod invariant;
mod owed;
mod rest;
mod rules;
mod shape;
mod state;
mod tasks;
mod upkeep;
mod verdict;

pub use invariant::{Checked, Invariant, Violation};
pub(crate) use invariant::{broken, ensure};
pub use rules::{Policy, Rules};
pub use state::Model;
