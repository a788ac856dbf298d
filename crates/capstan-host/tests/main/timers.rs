//! Vats that act between their deliveries (02 §6).

use crate::support::{call, host, methargs, single, within};
use capstan_host::{Host, HostConfig, HostError};
use capstan_kernel::host_op::Refusal;
use capstan_model::id::{KRef, ObjectId};

const CLOCK: &str = "import { Far, E } from '@endo/far';
export const buildRootObject = (_p, _q, baggage) => Far('root', {
  ring(target, times) { let n = 0; const id = setInterval(() => { E.sendOnly(target).bump(); if ((n += 1) === times) clearInterval(id); }, 1); },
  sleep: ms => new Promise(wake => setTimeout(wake, ms, 'rested')), now: () => Date.now() });";

async fn clock(host: &Host) -> ObjectId {
    let mut config = single(CLOCK);
    for vat in &mut config.vats {
        vat.endowments.globals =
            ["setTimeout", "setInterval", "clearInterval", "Date"].map(Into::into).to_vec();
    }
    within(host.launch(config)).await.expect("a launch").root
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_answers_a_call_and_its_sends_arrive() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let clock = clock(&host).await;
    assert_eq!(call(&host, clock, "sleep", "[5]", &[]).await, "#\"rested\"");
    let counter = within(host.launch(single(crate::support::COUNTER))).await.expect("a launch").root;
    call(&host, clock, "ring", "[\"$0\",3]", &[counter]).await;
    while call(&host, counter, "read", "[]", &[]).await != "#3" {
        tokio::task::yield_now().await;
    }
    // Given again with every start, as the vat's configuration says.
    let held =
        within(host.send(KRef::Object(clock), methargs("now", "[]", &[]))).await.expect("a settlement");
    assert!(!held.rejected);
    within(host.stop()).await;
    let host = crate::support::host(home.path()).await;
    assert_eq!(call(&host, clock, "sleep", "[1]", &[]).await, "#\"rested\"");
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k138_the_hosts_restriction_holds_and_is_checked_itself() {
    let home = tempfile::tempdir().unwrap();
    let config = |names: &[&str]| HostConfig {
        network: false,
        allowed_globals: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..HostConfig::new(home.path())
    };
    let refused = Host::start(config(&["Date", "process"])).await;
    assert!(matches!(&refused, Err(HostError::UnknownGlobal(name)) if name == "process"), "{refused:?}");
    let host = within(Host::start(config(&["Date"]))).await.expect("a host");
    let mut launch = single(CLOCK);
    for vat in &mut launch.vats {
        vat.endowments.globals = vec!["setTimeout".into()];
    }
    let refused = within(host.launch(launch)).await;
    assert!(
        matches!(&refused, Err(Refusal::LaunchFailed(why)) if why.contains("Vat \"v1\" requested unknown global \"setTimeout\"")),
        "{refused:?}"
    );
    within(host.stop()).await;
}
