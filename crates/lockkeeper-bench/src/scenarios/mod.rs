//! What is measured: one file for each scenario.

mod batch;
mod command;
mod deadlock;
mod durable;
mod growth;
mod hand_over;
mod in_process;
mod restart;
mod socket;
mod work;

use crate::{
    args::{Plan, Scenario},
    peers::house::House,
    sheet::{Bound, Sheet, Target},
    trouble::Result,
};
use std::sync::Arc;

/// Measures one scenario.
pub(crate) async fn run(scenario: Scenario, plan: &Plan, house: &Arc<House>) -> Result<Vec<Sheet>> {
    match scenario {
        Scenario::InProcess => in_process::run(plan).await,
        Scenario::Durable => durable::run(plan).await,
        Scenario::Socket => socket::run(plan, house).await,
        Scenario::HandOver => hand_over::run(plan, house).await,
        Scenario::Deadlock => deadlock::run(plan, house).await,
        Scenario::Batch => batch::run(plan, house).await,
        Scenario::Growth => growth::run(plan, house).await,
        Scenario::Restart => restart::run(plan, house).await,
        Scenario::Command => command::run(plan, house).await,
        // It stands for the others, and is none itself.
        Scenario::All => Ok(Vec::new()),
    }
}

/// The heads of columns.
fn heads(numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(ToString::to_string).collect()
}

/// Ours are at least so many times better, in columns of so many clients or more.
fn times(least: f64, columns: &[usize], from: usize) -> Target {
    let columns = columns.iter().enumerate();
    let columns: Vec<usize> =
        columns.filter(|(_, count)| **count >= from).map(|(at, _)| at).collect();
    // A target that counts nowhere must not count everywhere.
    let columns = if columns.is_empty() { vec![usize::MAX] } else { columns };
    Target { bound: Bound::Ratio(least), columns }
}
