//! Runs the simulator from the command line while there is no `lockkeeper simulate` yet.
#![allow(clippy::print_stdout, reason = "a command line")]

use lockkeeper_sim::{SimConfig, simulate};

fn main() {
    let arg = |at: usize| std::env::args().nth(at).and_then(|text| text.parse::<u64>().ok());
    let config = SimConfig {
        seed: arg(1).unwrap_or(1),
        steps: arg(2).unwrap_or(100_000),
        projects: arg(3).unwrap_or(4) as usize,
        agents: arg(4).unwrap_or(12) as usize,
        check: arg(5).unwrap_or(1) == 1,
    };
    let start = std::time::Instant::now();
    match simulate(&config, &mut |_| {}) {
        Ok(report) => {
            println!("{report}");
            println!("{:.0} steps/s", report.steps as f64 / start.elapsed().as_secs_f64());
        }
        Err(failure) => {
            println!("{failure}");
            std::process::exit(1);
        }
    }
}
