//! Kernel services: those of an embedder, in this process or another, and the built-in ones.

use crate::support::{call, host, methargs, single, within};
use capstan_host::{
    Call, Host, HostConfig, Launched, Loader, Service, ServiceError, StartService, SystemSubcluster, Value,
};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId, VatId};
use capstan_model::peer::Millis;
use capstan_model::smallcaps::{decode, encode};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// A vat that keeps its services and calls them for whoever asks.
const CLIENT: &str = "import { Far } from '@endo/far'; import { E } from '@endo/eventual-send';
    export const buildRootObject = () => {
        let services;
        return Far('client', {
            bootstrap(_vats, given) { services = given; return 'ready'; },
            ask: (name, method, ...args) => E(services[name])[method](...args),
            tell: (name, method, ...args) => { E.sendOnly(services[name])[method](...args); },
            async hand(name, method) { return E(services[name])[method](Far('thing', { hello: () => 'hi' })); },
            async roundTrip() {
                const thing = Far('thing', { hello: () => 'hi' });
                const url = await E(services.ocapURLIssuerService).issue(thing);
                return (await E(services.ocapURLRedemptionService).redeem(url)) === thing;
            },
            async issueAhead(what) {
                const thing = Far('thing', { hello: () => 'hi' });
                const { promise, resolve, reject } = Promise.withResolvers();
                const issued = E(services.ocapURLIssuerService).issue(promise);
                await E(thing).hello();
                if (what === 'thing') resolve(thing); else if (what === 'number') resolve(7); else reject(Error('no thing'));
                return (await E(services.ocapURLRedemptionService).redeem(await issued)) === thing;
            },
            async issue() { return E(services.ocapURLIssuerService).issue(Far('thing', { hello: name => `hi ${name}` })); },
            async redeem(url, name) { return E(E(services.ocapURLRedemptionService).redeem(url)).hello(name); },
            async pass() { return E(services.echo).nothing(); },
        });
    };";

const URLS: [&str; 2] = ["ocapURLIssuerService", "ocapURLRedemptionService"];

async fn client(host: &Host, services: &[&str]) -> Launched {
    let services = services.iter().map(|name| (*name).into()).collect();
    within(host.launch(LaunchConfig { services, ..single(CLIENT) })).await.expect("a launch")
}

/// Calls and returns the text of the rejection.
async fn fails(host: &Host, target: ObjectId, method: &str, args: &str) -> String {
    let settled = within(host.send(target.into(), methargs(method, args, &[]))).await.expect("a settlement");
    assert!(settled.rejected, "{method}: {}", settled.value.body);
    settled.value.body.to_string()
}

/// What it does with a call depends on the method.
#[derive(Default)]
struct Echo {
    seen: Arc<Mutex<Vec<Value<KRef>>>>,
    go_on: Arc<Notify>,
}

impl Service for Echo {
    async fn call(&self, call: Call) -> Result<Value<KRef>, ServiceError> {
        self.seen.lock().unwrap().extend(call.args.iter().cloned());
        match call.method.as_str() {
            "echo" => Ok(Value::Array(call.args)),
            "nothing" => Ok(Value::Undefined),
            "fail" => Err(ServiceError::new("it does not work")),
            "failLater" => {
                tokio::task::yield_now().await;
                Err(ServiceError::new("it did not work"))
            }
            "panic" => panic!("a panic of a service"),
            "invent" => Ok(Value::Object { slot: ObjectId(999).into(), iface: None }),
            "wait" => {
                self.go_on.notified().await;
                Ok(Value::Number(1.0))
            }
            "busy" => {
                // All that a client of the kernel may do, from inside a call that the kernel waits for.
                let host = call.host()?;
                let launched = host.launch(single(CLIENT)).await?;
                let told = host.send(launched.root.into(), methargs("ask", "[]", &[])).await?;
                host.request(HostOp::Collect).await?;
                host.request(HostOp::TerminateSubcluster(launched.subcluster)).await?;
                host.request(HostOp::RestartVat(VatId(1))).await?;
                Ok(Value::Bool(told.rejected))
            }
            _ => Err(call.unknown_method()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k180_k181_a_vat_calls_a_service() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let (echo, seen) = (Echo::default(), Arc::default());
    let echo = Echo { seen: Arc::clone(&seen), ..echo };
    let object = within(host.register_service("echo", false, echo)).await.unwrap();
    let again = within(host.register_service("echo", false, Echo::default())).await;
    assert_eq!(again, Err(Refusal::ServiceRegistered("echo".into())));
    let built_in = within(host.register_service("kernelFacet", false, Echo::default())).await;
    assert_eq!(built_in, Err(Refusal::ServiceRegistered("kernelFacet".into())));

    let launched = client(&host, &["echo"]).await;
    assert_eq!(launched.bootstrap_result.map(|value| value.body.to_string()).as_deref(), Some("#\"ready\""));
    let root = launched.root;
    assert_eq!(
        call(&host, root, "ask", r#"["echo","echo",1,"$0"]"#, &[root]).await,
        r##"#[1,"$0.Alleged: client"]"##
    );
    let named = Value::Object { slot: root.into(), iface: Some("Alleged: client".into()) };
    assert_eq!(*seen.lock().unwrap(), [Value::Number(1.0), named]);
    assert_eq!(call(&host, root, "ask", r#"["echo","nothing"]"#, &[]).await, r##"#"#undefined""##);
    for (method, why) in [
        ("fail", "it does not work"),
        ("failLater", "it did not work"),
        ("bogus", "kernel service 'echo' has no method 'bogus'"),
        ("panic", "kernel service 'echo' failed"),
        ("invent", "the service gave ko999, which does not exist"),
    ] {
        let reason = fails(&host, root, "ask", &format!(r#"["echo","{method}"]"#)).await;
        assert!(reason.contains(&format!("[KERNEL:DELIVERY_FAILED] {why}")), "{method}: {reason}");
    }
    // Without a result nobody is told, and the service goes on.
    call(&host, root, "tell", r#"["echo","fail"]"#, &[]).await;
    assert_eq!(call(&host, root, "ask", r#"["echo","echo"]"#, &[]).await, "#[]");

    within(host.unregister_service("echo")).await.unwrap();
    within(host.unregister_service("echo")).await.unwrap();
    let reason = fails(&host, root, "ask", r#"["echo","echo"]"#).await;
    assert!(reason.contains("[KERNEL:OBJECT_DELETED]"), "{reason}");
    assert_ne!(within(host.register_service("echo", false, Echo::default())).await, Ok(object));
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k182_a_service_uses_the_kernel_that_calls_it() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let object = within(host.register_service("echo", false, Echo::default())).await.unwrap();
    client(&host, &["echo"]).await;
    assert_eq!(call(&host, object, "busy", "[]", &[]).await, "#true");
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k179_k185_a_service_of_the_start_is_back_and_a_lost_call_is_told() {
    let home = tempfile::tempdir().unwrap();
    let config = |go_on: &Arc<Notify>| HostConfig {
        services: vec![StartService::new("echo", false, Echo { go_on: go_on.clone(), ..Echo::default() })],
        ..HostConfig::new(home.path())
    };
    let go_on = Arc::default();
    let first = within(Host::start(config(&go_on))).await.unwrap();
    let root = client(&first, &["echo"]).await.root;
    let named = within(first.query("SELECT object FROM service")).await.unwrap();
    let echo: ObjectId = named[0]["object"].as_str().unwrap().parse().unwrap();
    let waiting = {
        let first = first.clone();
        tokio::spawn(async move { first.send(root.into(), methargs("ask", r#"["echo","wait"]"#, &[])).await })
    };
    within(async {
        while within(first.query("SELECT * FROM promises WHERE decider = 'kernel'")).await.unwrap().is_empty()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(first.stop()).await;
    assert!(within(waiting).await.unwrap().is_err());
    drop(first);

    let again = within(Host::start(config(&go_on))).await.unwrap();
    // Known before anything else is: the same object, and nobody had to register it.
    let taken = within(again.register_service("echo", false, Echo::default())).await;
    assert_eq!(taken, Err(Refusal::ServiceRegistered("echo".into())));
    assert_eq!(call(&again, echo, "echo", "[]", &[]).await, "#[]");
    let decided = within(again.query("SELECT * FROM promises WHERE decider = 'kernel'")).await.unwrap();
    assert_eq!(decided, []);
    within(again.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_never_answers_hinders_no_stop() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let object = within(host.register_service("echo", false, Echo::default())).await.unwrap();
    let waiting = {
        let host = host.clone();
        tokio::spawn(async move { host.send(object.into(), methargs("wait", "[]", &[])).await })
    };
    // Answered although an earlier call of the same service is not.
    assert_eq!(call(&host, object, "echo", "[]", &[]).await, "#[]");
    within(host.stop()).await;
    assert!(within(waiting).await.unwrap().is_err());
}

/// A service whose code runs in another process, behind a Unix socket: one line a call, one line an answer.
struct Proxy(tokio::sync::Mutex<tokio::io::BufReader<tokio::net::UnixStream>>);

impl Service for Proxy {
    async fn call(&self, call: Call) -> Result<Value<KRef>, ServiceError> {
        let args = encode(&Value::Array(call.args));
        let line = format!("{}\n", json!({"method": call.method, "args": args}));
        let mut stream = self.0.lock().await;
        stream.get_mut().write_all(line.as_bytes()).await.map_err(ServiceError::new)?;
        let mut line = String::new();
        stream.read_line(&mut line).await.map_err(ServiceError::new)?;
        let answer: Json = serde_json::from_str(&line).map_err(ServiceError::new)?;
        if let Some(text) = answer["error"].as_str() {
            return Err(ServiceError::new(text));
        }
        let value: CapData<KRef> =
            serde_json::from_value(answer["value"].clone()).map_err(ServiceError::new)?;
        decode(&value).map_err(ServiceError::new)
    }
}

/// Tells the child process where to serve.
const SOCKET: &str = "CAPSTAN_TEST_SERVICE_SOCKET";

/// The other process: reverses its arguments. Does nothing unless it is started by the test below.
#[test]
fn a_child_process_serves() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let request: Json = serde_json::from_str(&line.unwrap()).unwrap();
        let args: CapData<KRef> = serde_json::from_value(request["args"].clone()).unwrap();
        let Ok(Value::Array(mut args)) = decode(&args) else { panic!("no arguments") };
        args.reverse();
        let answer = match request["method"].as_str() {
            Some("reverse") => json!({"value": encode(&Value::Array(args))}),
            _ => json!({"error": "the other process does not know that"}),
        };
        stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k183_a_service_in_another_process() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("service.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "services::a_child_process_serves"])
        .env(SOCKET, &path)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (stream, _) = within(listener.accept()).await.unwrap();
    let kernel_home = tempfile::tempdir().unwrap();
    let host = host(kernel_home.path()).await;
    let proxy = Proxy(tokio::sync::Mutex::new(tokio::io::BufReader::new(stream)));
    within(host.register_service("far", false, proxy)).await.unwrap();
    let root = client(&host, &["far"]).await.root;
    let answer = call(&host, root, "ask", r#"["far","reverse",1,"$0"]"#, &[root]).await;
    assert_eq!(answer, r##"#["$0.Alleged: client",1]"##);
    let reason = fails(&host, root, "ask", r#"["far","bogus"]"#).await;
    assert!(reason.contains("[KERNEL:DELIVERY_FAILED] the other process does not know that"), "{reason}");
    child.kill().await.unwrap();
    let reason = fails(&host, root, "ask", r#"["far","reverse"]"#).await;
    assert!(reason.contains("DELIVERY_FAILED"), "{reason}");
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_vats_issue_and_redeem_urls_across_two_hosts() {
    let (home_ann, home_bob) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ann, bob) = (host(home_ann.path()).await, host(home_bob.path()).await);
    let (alice, ben) = (client(&ann, &URLS).await.root, client(&bob, &URLS).await.root);
    assert_eq!(call(&ann, alice, "roundTrip", "[]", &[]).await, "#true");
    let url = call(&ann, alice, "issue", "[]", &[]).await;
    let url = url.trim_start_matches('#').trim_matches('"');
    assert!(url.starts_with("ocap:"), "{url}");
    assert_eq!(call(&bob, ben, "redeem", &format!(r#"["{url}","ben"]"#), &[]).await, "#\"hi ben\"");

    let reason = fails(&ann, alice, "ask", r#"["ocapURLIssuerService","issue",1]"#).await;
    assert!(reason.contains("[KERNEL:DELIVERY_FAILED] Argument must be a remotable"), "{reason}");
    assert_eq!(call(&ann, alice, "issueAhead", r#"["thing"]"#, &[]).await, "#true");
    for (what, why) in [("number", "Argument must be a remotable"), ("nothing", "no thing")] {
        let reason = fails(&ann, alice, "issueAhead", &format!(r#"["{what}"]"#)).await;
        assert!(reason.contains(why), "{reason}");
    }
    let reason = fails(&ann, alice, "ask", r#"["ocapURLIssuerService","bogus"]"#).await;
    assert!(reason.contains("'bogus'"), "{reason}");
    for argument in ["1", "\"nonsense\""] {
        let args = format!(r#"["ocapURLRedemptionService","redeem",{argument}]"#);
        let reason = fails(&ann, alice, "ask", &args).await;
        assert!(reason.contains("DELIVERY_FAILED"), "{reason}");
    }
    tokio::join!(within(ann.stop()), within(bob.stop()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r167_a_vat_that_redeems_nonsense_is_answered() {
    let home = tempfile::tempdir().unwrap();
    let config = HostConfig { ack_timeout: Millis(100), ..HostConfig::new(home.path()) };
    let host = within(Host::start(config)).await.unwrap();
    let alice = client(&host, &URLS).await.root;
    let nobody = "ocap:z2uFdqT7F9Yx1CbJgkBAu7wKZ6Hh8Vv3rQ9kN5mPsLx\
                  @12D3KooWBhvxmvKdTYGJvXjKGBp7ybLvfBWCAfPWAq1NJEwS6Aeu,/ip4/127.0.0.1/tcp/9";
    for (url, why) in [
        ("nonsense", "unparseable URL"),
        ("http://example.com", "not an ocap URL"),
        ("ocap:zNoHost", "bad ocap URL"),
        (nobody, "URL redemption timed out after 400ms"),
    ] {
        let args = format!(r#"["ocapURLRedemptionService","redeem","{url}"]"#);
        let reason = fails(&host, alice, "ask", &args).await;
        assert!(reason.contains(why), "{url}: {reason}");
    }
    assert_eq!(call(&host, alice, "roundTrip", "[]", &[]).await, "#true");
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k161_the_facet_is_not_for_user_subclusters() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    for name in ["kernelFacet", "bogus"] {
        let config = LaunchConfig { services: vec![name.into()], ..single(CLIENT) };
        let refusal = Refusal::BadConfig(format!("no registered kernel service '{name}'"));
        assert_eq!(within(host.launch(config)).await, Err(refusal));
    }
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k162_k171_k172_k184_a_system_subcluster_runs_the_kernel_through_the_facet() {
    let home = tempfile::tempdir().unwrap();
    let config = LaunchConfig { services: vec!["kernelFacet".into()], ..single(CLIENT) };
    let loader = Loader::new(|config| match config["bootstrap"].as_str() {
        Some("main") => Ok(single(CLIENT)),
        _ => Err("invalid cluster config".to_owned()),
    });
    let config = HostConfig {
        system: vec![SystemSubcluster::new("admin", config)],
        loader: Some(loader),
        ..HostConfig::new(home.path())
    };
    let host = within(Host::start(config)).await.unwrap();
    let root = within(host.system_root("admin")).await.unwrap();
    let ask = async |method: &str, args: &str| {
        call(&host, root, "ask", &format!(r#"["kernelFacet","{method}"{args}]"#), &[]).await
    };
    assert_eq!(ask("ping", "").await, "#\"pong\"");
    assert_eq!(ask("getSystemSubclusterRoot", ",\"admin\"").await, format!("#\"{root}\""));
    assert_eq!(ask("getPresence", &format!(",\"{root}\"")).await, "#\"$0.Alleged: client\"");
    assert_eq!(ask("pingVat", ",\"v1\"").await, "#\"pong\"");
    let status: Json = serde_json::from_str(&ask("getStatus", "").await[1..]).unwrap();
    assert_eq!(
        (status["vats"].as_array().unwrap().len(), status["subclusters"].as_array().unwrap().len()),
        (1, 1)
    );
    assert_eq!(status["vats"][0]["id"], "v1");
    for (kind, name) in [("vats", "config"), ("subclusters", "config")] {
        assert!(status[kind][0].get(name).is_some(), "{status}");
    }

    let launched = ask("launchSubcluster", r#",{"bootstrap":"main"}"#).await;
    let launched: Json = serde_json::from_str(&launched[1..]).unwrap();
    assert_eq!(
        (&launched["subclusterId"], &launched["bootstrapResult"]["body"]),
        (&json!("s2"), &json!("!#\"ready\""))
    );
    let subclusters: Json = serde_json::from_str(&ask("getSubclusters", "").await[1..]).unwrap();
    assert_eq!((subclusters.as_array().unwrap().len(), &subclusters[1]["id"]), (2, &json!("s2")));
    let other = launched["rootKref"].as_str().unwrap();
    let told = ask("queueMessage", &format!(r#","{other}","bootstrap",[{{}},{{}}]"#)).await;
    assert_eq!(told, r##"#{"body":"!#\"ready\"","slots":[]}"##);
    ask("terminateSubcluster", ",\"s2\"").await;
    assert_eq!(ask("getSubcluster", ",\"s2\"").await, r##"#"#undefined""##);
    let subclusters: Json = serde_json::from_str(&ask("getSubclusters", "").await[1..]).unwrap();
    assert_eq!(subclusters.as_array().unwrap().len(), 1);

    let named =
        call(&host, root, "ask", r#"["kernelFacet","registerKernelServiceObject","me","$0"]"#, &[root]).await;
    assert_eq!(named, r##"#"#undefined""##);
    let me = LaunchConfig { services: vec!["me".into()], ..single(CLIENT) };
    let user = within(host.launch(me)).await.unwrap().root;
    assert_eq!(call(&host, user, "ask", r#"["me","ask","kernelFacet","ping"]"#, &[]).await, "#\"pong\"");

    for (method, args, why) in [
        ("bogus", "", "kernel service 'kernelFacet' has no method 'bogus'"),
        ("launchSubcluster", ",{}", "invalid cluster config"),
        ("terminateSubcluster", ",\"s9\"", "Subcluster does not exist."),
        ("getSystemSubclusterRoot", ",\"x\"", "System subcluster"),
        ("pingVat", ",\"v9\"", "Vat does not exist."),
        ("getPresence", ",\"ko99\"", "the service gave ko99, which does not exist"),
        ("getPresence", ",\"nonsense\"", "invalid reference"),
        ("queueMessage", ",\"ko99\",\"m\",[]", "OBJECT_DELETED"),
    ] {
        let reason = fails(&host, root, "ask", &format!(r#"["kernelFacet","{method}"{args}]"#)).await;
        assert!(reason.contains("DELIVERY_FAILED") && reason.contains(why), "{method}: {reason}");
    }

    // A reset ends the vat that asked for it; the services are there for those that come after.
    let reset = within(host.send(root.into(), methargs("ask", r#"["kernelFacet","reset"]"#, &[]))).await;
    assert_eq!(reset, Err(Refusal::Reset));
    let status = within(host.request(HostOp::Status)).await;
    assert!(matches!(&status, Ok(Answer::Status(status)) if status.vats == 0), "{status:?}");
    let root = client(&host, &URLS).await.root;
    assert_eq!(call(&host, root, "roundTrip", "[]", &[]).await, "#true");
    within(host.stop()).await;
}
