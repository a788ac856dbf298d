//! One kernel: calls, restarts, requests that end early.

use crate::support::{COUNTER, call, host, launch, methargs, within};
use capstan_host::{Host, HostConfig};
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_model::id::ObjectId;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k123_k148_a_counter_goes_on_after_the_kernel_restarts() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let (peer, life) = (first.peer().clone(), first.incarnation());
    let counter = launch(&first, COUNTER).await;
    assert_eq!(counter.bootstrap_result, None);
    assert_eq!(call(&first, counter.root, "bump", "[]", &[]).await, "#1");
    assert_eq!(call(&first, counter.root, "bump", "[5]", &[]).await, "#6");
    within(first.stop()).await;

    let again = host(home.path()).await;
    assert_eq!((again.peer(), again.incarnation()), (&peer, life));
    assert_eq!(call(&again, counter.root, "bump", "[]", &[]).await, "#7");
    let status = within(again.request(HostOp::Status)).await;
    assert!(matches!(&status, Ok(Answer::Status(status)) if status.vats == 1), "{status:?}");
    within(again.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_stops_the_host_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let counter = launch(&first, COUNTER).await.root;
    assert_eq!(call(&first, counter, "bump", "[]", &[]).await, "#1");
    drop(first);
    // The lock is free once everything is on disk.
    let again = within(async {
        loop {
            match Host::start(HostConfig::new(home.path())).await {
                Ok(host) => return host,
                Err(error) => assert!(error.is_locked(), "{error}"),
            }
        }
    });
    assert_eq!(call(&again.await, counter, "read", "[]", &[]).await, "#1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_waits_for_hinders_nobody() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let source = "import { Far } from '@endo/far'; let n = 0;
        export const buildRootObject = () => Far('root', { never() { n += 1; return new Promise(() => {}); }, asked: () => n });";
    let root = launch(&host, source).await.root;
    for _ in 0..10 {
        let never = host.send(root.into(), methargs("never", "[]", &[]));
        tokio::select! {
            biased;
            settled = never => panic!("{settled:?}"),
            // Answered after the call before it, so that one has been asked.
            status = host.request(HostOp::Status) => assert!(status.is_ok()),
        }
    }
    assert_eq!(call(&host, root, "asked", "[]", &[]).await, "#10");
    let waiting = within(host.query("SELECT * FROM hold WHERE kind = 'waiting'")).await.unwrap();
    assert_eq!(waiting, []);
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_those_who_wait_and_refuses_those_who_come() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let source = "import { Far } from '@endo/far';
        export const buildRootObject = () => Far('root', { never: () => new Promise(() => {}) });";
    let root = launch(&host, source).await.root;
    let waiting = {
        let host = host.clone();
        tokio::spawn(async move { host.send(root.into(), methargs("never", "[]", &[])).await })
    };
    within(async {
        while within(host.query("SELECT * FROM hold WHERE kind = 'waiting'")).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    tokio::join!(within(host.stop()), within(host.stop()));
    let stopping = Refusal::Internal("the kernel is stopping".to_owned());
    assert_eq!(within(waiting).await.unwrap(), Err(stopping.clone()));
    assert_eq!(within(host.request(HostOp::Status)).await, Err(stopping));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let nobody: ObjectId = "ko999".parse().unwrap();
    let settled = within(host.send(nobody.into(), methargs("hello", "[]", &[]))).await.unwrap();
    assert!(settled.rejected && settled.value.body.contains("[KERNEL:OBJECT_DELETED]"), "{settled:?}");
    let nobody = "v99".parse().unwrap();
    let refused = within(host.request(HostOp::PingVat(nobody))).await;
    assert_eq!(refused, Err(Refusal::VatNotFound(nobody)));
    let refused = within(host.redeem_url("nonsense")).await;
    assert!(matches!(refused, Err(Refusal::BadUrl(_))), "{refused:?}");
    assert!(within(host.query("DELETE FROM meta")).await.is_err());
    within(host.stop()).await;
}
