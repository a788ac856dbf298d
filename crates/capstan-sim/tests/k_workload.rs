//! The random workload on one kernel, for some seconds; `cargo run -p capstan-sim --bin soak` goes on for hours.

use capstan_sim::soak::act::{Act, acts};
use capstan_sim::soak::{ACTS, run, run_seed};

/// Seeds that a run of the tests tries.
const SEEDS: u64 = 80;

fn sweep(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err((acts, failure)) = run_seed(seed) {
            let acts = serde_json::to_string(&acts).unwrap();
            panic!("seed {seed}: {}\n{}\nfor soak --replay: {acts}", failure.what, failure.trace);
        }
    }
}

#[test]
fn a_kernel_loses_doubles_and_leaks_nothing_whatever_vats_hosts_and_crashes_do() {
    sweep(0..SEEDS / 2);
}

#[test]
fn nor_on_other_seeds() {
    sweep(SEEDS / 2..SEEDS);
}

#[test]
fn a_workload_and_its_trace_are_decided_by_the_seed() {
    for seed in [3, 8] {
        assert_eq!(acts(seed, ACTS), acts(seed, ACTS));
        let first = run_seed(seed).unwrap();
        assert_eq!(run_seed(seed).unwrap(), first);
        assert_ne!(run_seed(seed + 1).unwrap(), first);
    }
}

#[test]
fn a_printed_list_of_acts_is_performed_again_and_parts_may_be_left_out() {
    let (weather, all) = acts(5, ACTS);
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Act>>(&text).unwrap(), all);
    for left_out in 0..6 {
        let some: Vec<Act> =
            all.iter().enumerate().filter(|(at, _)| at % 6 != left_out).map(|(_, act)| act.clone()).collect();
        run(weather, &some).unwrap();
    }
}
