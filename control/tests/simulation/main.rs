//! A deterministic simulation of the control plane: the real code, against model nodes and model gateways, with simulated time, and
//! with faults from a seed. `control/tests/simulation/README.md` explains it.
//!
//! `SIM_SEED=7` runs one history and prints it; `SIM_SEEDS=200000` runs so many, `SIM_FROM=1000` from this seed on.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod check;
mod client;
mod control;
mod decisions;
mod faults;
mod gateway;
mod model;
mod node;
mod plan;
mod random;
mod run;
mod shrink;
mod storage;
mod world;

use miroir_control::base::outbound::Outbound;
use plan::{Part, Plan};
use run::{Outcome, outbound, run};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A fifth of the time of a history is memory.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After so long in real time a history does not end any more. It takes less than a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many histories there are if nothing else is said: fewer in a build that is not optimized, where one takes six times as long.
const USUAL: u64 = if cfg!(debug_assertions) { 200 } else { 2_000 };

/// With `SIM_LOG=debug`, for example, the control plane's log of a shortened history is printed.
fn print_log() {
    if let Ok(filter) = std::env::var("SIM_LOG") {
        let builder = tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(std::io::stderr);
        let _ = builder.with_env_filter(filter).try_init();
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// What happens in a history.
fn told(plan: &Plan) -> String {
    let mut text = format!(
        "seed {}: {} nodes, {} shards, {} replicas\n",
        plan.seed, plan.nodes, plan.shards, plan.replication
    );
    for step in &plan.steps {
        let what = match &step.part {
            Part::Action(action) => format!("{action:?}"),
            Part::Fault(fault) => format!("{fault:?}"),
        };
        let _ = writeln!(text, "  step {} at {} ms: {what}", step.number, step.at);
    }
    text
}

/// The histories that run now, and since when. One that spins within the control plane ends nowhere else: the process ends then, and
/// says which it was.
#[derive(Default)]
struct Watch(Mutex<BTreeMap<u64, Instant>>);

impl Watch {
    fn run(&self, plan: &Plan, outbound: &Outbound, shows: bool) -> Outcome {
        self.0.lock().unwrap().insert(plan.seed, Instant::now());
        let outcome = run(plan, outbound, shows);
        self.0.lock().unwrap().remove(&plan.seed);
        outcome
    }

    /// Watches all histories from now on.
    fn start() -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let watched = Arc::downgrade(&watch);
        std::thread::spawn(move || {
            while let Some(watch) = watched.upgrade() {
                let endless = watch
                    .0
                    .lock()
                    .unwrap()
                    .iter()
                    .find(|(_, begun)| begun.elapsed() > PATIENCE)
                    .map(|it| *it.0);
                if let Some(seed) = endless {
                    eprintln!("this history does not end:\n{}", told(&Plan::new(seed)));
                    std::process::exit(1);
                }
                drop(watch);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        watch
    }
}

/// A history that fails, as short as it can be made.
fn report(plan: &Plan, outbound: &Outbound, outcome: &Outcome) -> String {
    let kind =
        |outcome: &Outcome| outcome.violations.first().map(|first| first.chars().take(2).collect::<String>());
    let wanted = kind(outcome);
    let short = shrink::shrink(plan, |plan| kind(&run(plan, outbound, false)) == wanted);
    print_log();
    let outcome = run(&short, outbound, true);
    let mut text = told(&short);
    for violation in outcome.violations.iter().take(8) {
        let _ = writeln!(text, "  violates {violation}");
    }
    if number("SIM_SEED").is_some() {
        text.push_str(&outcome.history);
    }
    text
}

/// Runs histories on all processors.
fn histories(from: u64, count: u64, outbound: &Outbound) -> Vec<(u64, Outcome)> {
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(usize::try_from(count).unwrap());
    let watch = Watch::start();
    let threads = number("SIM_THREADS").map_or(threads, |threads| usize::try_from(threads).unwrap()) as u64;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let watch = watch.clone();
                scope.spawn(move || {
                    let seeds = (from..from + count).filter(|seed| seed % threads == worker);
                    let ran = seeds.map(|seed| (seed, watch.run(&Plan::new(seed), outbound, false)));
                    ran.filter(|(_, outcome)| !outcome.violations.is_empty()).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut failed: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        failed.sort_by_key(|(seed, _)| *seed);
        failed
    })
}

#[test]
fn the_invariants_hold_in_all_histories() {
    let one = number("SIM_SEED");
    let (from, count) = match one {
        Some(seed) => (seed, 1),
        None => (number("SIM_FROM").unwrap_or(1), number("SIM_SEEDS").unwrap_or(USUAL)),
    };
    let outbound = outbound();
    let begun = Instant::now();
    let failed = histories(from, count, &outbound);
    println!("{count} histories in {:?}, {} failed", begun.elapsed(), failed.len());
    if number("SIM_LIST").is_some() {
        for (seed, outcome) in &failed {
            println!("{seed}: {}", outcome.violations[0]);
        }
        return;
    }
    let told: Vec<String> =
        failed.iter().take(3).map(|(seed, outcome)| report(&Plan::new(*seed), &outbound, outcome)).collect();
    assert!(failed.is_empty(), "{} of {count} histories fail\n{}", failed.len(), told.join("\n"));
}

#[test]
fn a_seed_has_one_history() {
    let outbound = outbound();
    for seed in 1..=5 {
        let plan = Plan::new(seed);
        let (one, other) = (run(&plan, &outbound, true), run(&plan, &outbound, true));
        let difference = one.history.lines().zip(other.history.lines()).find(|(one, other)| one != other);
        assert_eq!(difference, None, "seed {seed}");
        assert_eq!(one, other, "seed {seed}");
    }
}
