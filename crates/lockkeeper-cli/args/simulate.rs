//! The verb `simulate`: its flags and their bounds.

use super::whole::{Count, whole};
use lockkeeper_sim::SimConfig;

/// Try the locks out on made-up agents and check every step.
///
/// Agents of several projects take locks in every order, crash, overstay and run into deadlocks
/// on purpose, while a second, simpler lock table decides everything once more. After each step
/// the two must agree and every promise must hold, above all that an exclusive lock has one
/// holder.
///
/// All of it follows from the seed: the same numbers give the same run, on any machine.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(after_help = "\
Examples:
  lockkeeper simulate
  lockkeeper simulate --seed 7 --steps 20000
  lockkeeper simulate --projects 1 --agents 40     one crowded project
  lockkeeper simulate --seeds 20 --steps 5000      20 different runs, from seed 1 to 20
  lockkeeper simulate --json --quiet               one JSON object, for programs

Exit codes: 0 every promise held, 1 one was broken (the output says how to see it again),
2 wrong usage.")]
// The last one wins when a flag is given twice, so that an alias or a script can be overridden.
#[command(args_override_self = true, verbatim_doc_comment)]
pub(crate) struct Simulate {
    /// Where chance starts: another seed is another run
    #[arg(long, value_name = "N", default_value_t = DEFAULT.seed)]
    #[arg(value_parser = seed)]
    pub(crate) seed: u64,

    /// How many runs, each with the next seed
    #[arg(long, value_name = "N", default_value_t = DEFAULT.seeds)]
    #[arg(value_parser = Count::SEEDS.parser())]
    pub(crate) seeds: u64,

    /// How many steps a run takes
    #[arg(long, value_name = "N", default_value_t = DEFAULT.steps)]
    #[arg(value_parser = Count::STEPS.parser())]
    pub(crate) steps: u64,

    /// How many projects share the machine; each has locks of its own
    #[arg(long, value_name = "N", default_value_t = DEFAULT.projects)]
    #[arg(value_parser = Count::PROJECTS.parser())]
    pub(crate) projects: u64,

    /// How many agents work in each project
    #[arg(long, value_name = "N", default_value_t = DEFAULT.agents)]
    #[arg(value_parser = Count::AGENTS.parser())]
    pub(crate) agents: u64,

    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What `lockkeeper simulate` does without any flag.
pub(crate) const DEFAULT: Simulate =
    Simulate { seed: 1, seeds: 1, steps: 100_000, projects: 4, agents: 12, quiet: false };

impl Simulate {
    /// One configuration for each seed.
    pub(crate) fn configs(&self) -> impl Iterator<Item = SimConfig> + '_ {
        (0..self.seeds).map(|nth| SimConfig {
            // The seeds go on from 0 after the last one: a run near the end of the numbers is a
            // run like any other.
            seed: self.seed.wrapping_add(nth),
            steps: self.steps,
            // Both are bounded far below any usize by their parsers.
            projects: self.projects as usize,
            agents: self.agents as usize,
            check: true,
        })
    }

    /// The command that shows one of these runs again.
    pub(crate) fn command_for(&self, seed: u64) -> String {
        let Simulate { steps, projects, agents, .. } = self;
        let world = format!("--projects {projects} --agents {agents}");
        format!("lockkeeper simulate --seed {seed} --steps {steps} {world}")
    }
}

impl Count {
    const SEEDS: Count = Count {
        bounds: 1..=1_000_000,
        too_few: "there must be at least 1 run: leave --seeds out for one",
        too_many: "at most 1000000 runs at a time: go on from there with --seed",
    };
    const STEPS: Count = Count {
        bounds: 1..=1_000_000_000_000,
        too_few: "a run needs at least 1 step: leave --steps out for 100000",
        too_many: "at most 1000000000000 steps in a run: use --seeds for several runs",
    };
    const PROJECTS: Count = Count {
        bounds: 1..=1_000,
        too_few: "there must be at least 1 project: leave --projects out for 4",
        too_many: "at most 1000 projects in a run: use --seeds for several runs",
    };
    const AGENTS: Count = Count {
        bounds: 1..=1_000,
        too_few: "each project needs at least 1 agent: leave --agents out for 12",
        too_many: "at most 1000 agents in each project: use --projects for more",
    };
}

fn seed(text: &str) -> Result<u64, String> {
    whole(text)?.ok_or_else(|| format!("the largest seed is {}", u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Verb, help};

    fn parse(line: &str) -> Result<Simulate, clap::Error> {
        match help::parse(line.split(' '))?.verb {
            Verb::Simulate(simulate) => Ok(simulate),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_flags_everything_has_its_default() {
        assert_eq!(parse("lockkeeper simulate").unwrap(), DEFAULT);
    }

    #[test]
    fn the_command_to_see_a_run_again_leads_to_that_run() {
        let line = "lockkeeper simulate --seed 5 --seeds 9 --steps 1_234 --projects 2 --agents 3";
        let wanted = parse(line).unwrap();
        let again = parse(&wanted.command_for(8)).unwrap();
        assert_eq!(again, Simulate { seed: 8, seeds: 1, ..wanted });
        assert_eq!(again.steps, 1234);
    }

    #[test]
    fn seeds_follow_each_other_past_the_largest() {
        let wanted = Simulate { seed: u64::MAX, seeds: 3, ..DEFAULT };
        let seeds: Vec<u64> = wanted.configs().map(|config| config.seed).collect();
        assert_eq!(seeds, [u64::MAX, 0, 1]);
    }

    #[test]
    fn a_number_that_is_too_large_for_the_machine_is_too_large_for_us() {
        let error = parse("lockkeeper simulate --agents 99999999999999999999999").unwrap_err();
        assert!(error.to_string().contains("at most 1000 agents"), "{error}");
    }
}
