//! The verb `simulate`: runs seeded worlds, shows how they go, and says whether every promise held.

use crate::{
    args::simulate::Simulate,
    exit::Exit,
    output::say,
    progress::{Display, Style, grouped, rate},
};
use lockkeeper_sim::{Failure, Progress, Report, SimConfig};
use serde_json::{Map, Value, json};
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

/// What came of a run, for people and for programs.
struct Told {
    text: String,
    fields: Map<String, Value>,
}

/// A run that kept every promise, or the one that broke one.
type Verdict = Result<Told, Told>;

pub(crate) fn run(wanted: &Simulate, json: bool) -> io::Result<Exit> {
    let display = Display::new(io::stderr().lock(), Style::of_stderr(wanted.quiet));
    run_with(wanted, json, doubt, &mut io::stdout().lock(), display)
}

/// The real simulator, its answers made ready to be told.
fn doubt(config: &SimConfig, progress: &mut dyn FnMut(&Progress)) -> Verdict {
    match lockkeeper_sim::simulate(config, progress) {
        Ok(report) => Ok(told(&report)),
        Err(failure) => Err(told_failure(&failure)),
    }
}

fn told(report: &Report) -> Told {
    // A report that cannot be shown as JSON still has its text; tests hold the fields.
    let mut fields = match serde_json::to_value(report) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    // As in the table: many readers of JSON cannot hold a number of 64 bits.
    fields.insert("digest".into(), format!("{:016x}", report.digest).into());
    Told { text: report.to_string(), fields }
}

fn told_failure(failure: &Failure) -> Told {
    let fields: [(&str, Value); 6] = [
        ("seed", failure.config.seed.into()),
        ("project", failure.project.into()),
        ("step", failure.step.into()),
        ("invariant", format!("{:?}", failure.invariant).into()),
        ("message", failure.message.as_str().into()),
        ("transcript", failure.transcript.as_str().into()),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Told { text: failure.to_string(), fields: Map::from_iter(fields) }
}

/// Runs every seed until one breaks a promise.
fn run_with(
    wanted: &Simulate,
    json: bool,
    mut simulate: impl FnMut(&SimConfig, &mut dyn FnMut(&Progress)) -> Verdict,
    out: &mut impl Write,
    mut display: Display<impl Write>,
) -> io::Result<Exit> {
    let started = Instant::now();
    let several = wanted.seeds > 1;
    let mut kept = Vec::new();
    for config in wanted.configs() {
        let title = if several { format!("seed {}: ", config.seed) } else { String::new() };
        let begun = Instant::now();
        let verdict = simulate(&config, &mut |progress| display.show(&title, progress));
        let took = begun.elapsed();
        display.clear();
        let mut told = match verdict {
            Ok(told) => told,
            Err(told) => {
                let kept = kept.len();
                return broken(wanted, json, &config, told, kept, out, &mut display);
            }
        };
        time_into(&mut told.fields, config.steps, took);
        if several && !json {
            let line = format!("{title}every promise held, {}", pace(config.steps, took));
            if !say(out, &line)? {
                return Ok(Exit::Done);
            }
        }
        kept.push(told);
    }
    let steps = wanted.steps.saturating_mul(wanted.seeds);
    let answer = answer(wanted.seeds, json, kept, steps, started.elapsed());
    say(out, &answer)?;
    Ok(Exit::Done)
}

fn answer(seeds: u64, json: bool, mut kept: Vec<Told>, steps: u64, took: Duration) -> String {
    let several = kept.len() > 1;
    match (json, kept.pop()) {
        (true, Some(last)) => {
            let mut fields = if several {
                kept.push(last);
                let runs = kept.into_iter().map(|told| Value::Object(told.fields)).collect();
                Map::from_iter([("runs".to_owned(), Value::Array(runs))])
            } else {
                last.fields
            };
            time_into(&mut fields, steps, took);
            fields.insert("ok".into(), true.into());
            Value::Object(fields).to_string()
        }
        (false, Some(last)) if !several => {
            format!("{}\n\nevery promise held, {}", last.text.trim_end(), pace(steps, took))
        }
        _ => format!("{seeds} runs, every promise held, {}", pace(steps, took)),
    }
}

/// Tells of the run that broke a promise: to a program where it listens, to a person on stderr.
fn broken(
    wanted: &Simulate,
    json: bool,
    config: &SimConfig,
    mut told: Told,
    clean_runs: usize,
    out: &mut impl Write,
    display: &mut Display<impl Write>,
) -> io::Result<Exit> {
    display.say(told.text.trim_end());
    if json {
        let command = wanted.command_for(config.seed);
        let more = json!({ "ok": false, "clean_runs": clean_runs, "command": command });
        if let Value::Object(more) = more {
            told.fields.extend(more);
        }
        say(out, &Value::Object(told.fields).to_string())?;
    }
    Ok(Exit::Failed)
}

fn time_into(fields: &mut Map<String, Value>, steps: u64, took: Duration) {
    fields.insert("elapsed_ms".into(), (took.as_millis() as u64).into());
    fields.insert("steps_per_second".into(), rate(steps, took).into());
}

fn pace(steps: u64, took: Duration) -> String {
    format!(
        "{} steps in {:.1} s, {} steps/s",
        grouped(steps),
        took.as_secs_f64(),
        grouped(rate(steps, took))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::simulate::DEFAULT;
    use lockkeeper_sim::Invariant;

    fn some(text: &str) -> Told {
        let fields = Map::from_iter([("grants".to_owned(), Value::from(3))]);
        Told { text: text.to_owned(), fields }
    }

    /// Runs a made-up simulator in which `bad` is the seed that breaks a promise.
    fn run_made_up(wanted: &Simulate, json: bool, bad: u64) -> (Exit, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let simulate = |config: &SimConfig, _: &mut dyn FnMut(&Progress)| match config.seed {
            seed if seed == bad => Err(some("I1 broke")),
            _ => Ok(some("a table\n")),
        };
        let display = Display::new(&mut err, Style::Silent);
        let exit = run_with(wanted, json, simulate, &mut out, display).unwrap();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_clean_run_ends_with_its_table_and_its_pace() {
        let (exit, out, err) = run_made_up(&DEFAULT, false, 0);
        assert_eq!(exit, Exit::Done);
        assert!(out.starts_with("a table\n\nevery promise held, 100,000 steps in "), "{out}");
        assert_eq!(err, "");
    }

    #[test]
    fn a_broken_promise_fails_and_is_told_even_when_quiet() {
        let (exit, out, err) = run_made_up(&Simulate { seeds: 5, ..DEFAULT }, false, 3);
        assert_eq!(exit, Exit::Failed);
        assert_eq!(out.lines().count(), 2, "the clean runs before it:\n{out}");
        assert_eq!(err, "I1 broke\n");
    }

    #[test]
    fn a_broken_promise_is_told_with_all_that_is_known() {
        let failure = Failure {
            config: DEFAULT.configs().next().unwrap(),
            project: 2,
            step: 77,
            invariant: Invariant::I9,
            message: "overtaken".to_owned(),
            transcript: "a story".to_owned(),
            commands: (3, 50),
        };
        let Told { text, fields } = told_failure(&failure);
        for words in ["I9", "overtaken", "a story", &DEFAULT.command_for(DEFAULT.seed)] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
        let expected = json!({
            "seed": 1, "project": 2, "step": 77,
            "invariant": "I9", "message": "overtaken", "transcript": "a story",
        });
        assert_eq!(Value::Object(fields), expected);
    }

    #[test]
    fn a_broken_promise_is_one_object_for_a_program() {
        let wanted = Simulate { seeds: 5, ..DEFAULT };
        let (exit, out, _) = run_made_up(&wanted, true, 3);
        assert_eq!(exit, Exit::Failed);
        assert_eq!(out.lines().count(), 1);
        let object: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["ok"], false);
        assert_eq!(object["clean_runs"], 2);
        let command = "lockkeeper simulate --seed 3 --steps 100000 --projects 4 --agents 12";
        assert_eq!(object["command"], command);
    }

    #[test]
    fn several_runs_are_one_object_too() {
        let (exit, out, _) = run_made_up(&Simulate { seeds: 2, ..DEFAULT }, true, 0);
        assert_eq!(exit, Exit::Done);
        let object: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["ok"], true);
        let runs = object["runs"].as_array().unwrap();
        assert_eq!((runs.len(), &runs[1]["grants"]), (2, &Value::from(3)));
        assert!(runs[1]["elapsed_ms"].is_u64() && object["steps_per_second"].is_u64());
    }

    #[test]
    fn a_reader_who_leaves_does_not_turn_the_verdict() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for (bad, expected) in [(0, Exit::Done), (DEFAULT.seed, Exit::Failed)] {
            let simulate = |config: &SimConfig, _: &mut dyn FnMut(&Progress)| match config.seed {
                seed if seed == bad => Err(some("broke")),
                _ => Ok(some("table")),
            };
            let display = Display::new(io::sink(), Style::Silent);
            assert_eq!(run_with(&DEFAULT, true, simulate, &mut Gone, display).unwrap(), expected);
        }
    }
}
