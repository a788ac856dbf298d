//! fetch, as a vat sees it (04 §3); the host's part is tested there.

use crate::world::{Vat, start_of};
use capstan_model::fetch::{FetchRequest, FetchResponse, Redirects};
use capstan_model::vat::*;

const SOURCE: &str = "import { Far } from '@endo/far';
export const buildRootObject = () => Far('root', { run: text => (0, eval)(text), runLater: async text => (0, eval)(text) });";
const GLOBALS: [&str; 7] =
    ["fetch", "Request", "Headers", "Response", "URL", "AbortController", "URLSearchParams"];

fn start(hosts: Option<&[&str]>) -> VatStart {
    let mut start = start_of(1, SOURCE, VatLimits::default(), Vec::new());
    start.endowments.globals = GLOBALS.map(Into::into).to_vec();
    start.endowments.allowed_hosts = hosts.map(|hosts| hosts.iter().map(|host| (*host).into()).collect());
    start
}

fn vat() -> Vat {
    Vat::try_start(start(Some(&["ann.example", "127.0.0.1"]))).unwrap()
}

fn call(vat: &mut Vat, program: &str) -> VatReply {
    let reply =
        vat.call(&format!("#[\"runLater\",[{}]]", serde_json::Value::from(format!(" {program}"))), &[]);
    assert_eq!(reply.outcome, Ok(()));
    reply
}

fn requests(reply: &VatReply) -> Vec<(u64, FetchRequest)> {
    let one = |syscall: &VatSyscall| match syscall {
        VatSyscall::Fetch { id, request } => Some((*id, (**request).clone())),
        _ => None,
    };
    reply.syscalls.iter().filter_map(one).collect()
}

fn settled(reply: &VatReply) -> Vec<(bool, String)> {
    let batches = reply.syscalls.iter().filter_map(|syscall| match syscall {
        VatSyscall::Resolve(batch) => Some(batch),
        _ => None,
    });
    batches.flatten().map(|one| (one.rejected, one.value.body.to_string())).collect()
}

fn answer(status: u16, body: &str) -> FetchResponse {
    FetchResponse {
        status,
        url: "https://ann.example/end".into(),
        redirected: true,
        headers: vec![("content-type".into(), "text/plain".into()), ("x-a".into(), "1".into())],
        body: body.into(),
    }
}

#[test]
fn k140_fetch_needs_a_list_of_hosts_and_an_empty_one_refuses_all() {
    assert_eq!(
        Vat::try_start(start(None)).err().unwrap(),
        "Vat \"v1\" requested \"fetch\" but no network.allowedHosts was specified"
    );
    let reply = call(&mut Vat::try_start(start(Some(&[]))).unwrap(), "fetch('http://ann.example/')");
    assert!(settled(&reply)[0].1.contains("Invalid host: ann.example"), "{reply:?}");
}

#[test]
fn k140_what_is_not_listed_is_refused_and_never_asked() {
    let mut vat = vat();
    for (url, why) in [
        ("'http://bob.example/'", "Invalid host: bob.example"),
        ("'https://ann.example.evil.example/'", "Invalid host: ann.example.evil.example"),
        ("'http://ann.example@bob.example/'", "Invalid host: bob.example"),
        ("'data:text/plain,x'", "Invalid host: "),
        ("'blob:null/x'", "Invalid host: "),
        ("'file:///etc/passwd'", "file: URLs cannot be fetched"),
        ("new URL('http://bob.example/')", "Invalid host: bob.example"),
        ("new Request('http://bob.example/')", "Invalid host: bob.example"),
        ("'no url'", "Invalid URL"),
        ("{ toString: () => 'http://bob.example/' }", "Invalid host: bob.example"),
    ] {
        let reply = call(&mut vat, &format!("fetch({url})"));
        assert!(requests(&reply).is_empty(), "{url}");
        let (rejected, body) = &settled(&reply)[0];
        assert!(*rejected && body.contains(why), "{url}: {body}");
    }
}

#[test]
fn k140_a_listed_host_is_asked_on_any_port_by_any_scheme_with_all_that_was_said() {
    let mut vat = vat();
    for url in ["'http://ann.example/a'", "'https://ANN.example:8443/a'", "new URL('http://127.0.0.1:99/a')"]
    {
        assert_eq!(requests(&call(&mut vat, &format!("fetch({url}); 1"))).len(), 1, "{url}");
    }
    let reply = call(
        &mut vat,
        "fetch(new Request('http://ann.example/x', { headers: { 'X-A': ' b ' } }), { method: 'post', body: new URLSearchParams({ q: 'ä' }), redirect: 'follow' }); 1",
    );
    let [(_, request)] = &requests(&reply)[..] else { panic!("{reply:?}") };
    assert_eq!(
        (&*request.method, &*request.url, request.redirects),
        ("POST", "http://ann.example/x", Redirects::Follow)
    );
    assert_eq!(request.body.as_deref(), Some(&b"q=%C3%A4"[..]));
    // The headers given last count.
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(headers, [("content-type", "application/x-www-form-urlencoded;charset=UTF-8"), ("x-a", "b")]);
    for wrong in [
        "fetch('http://ann.example/', { body: 'x' })",
        "fetch('http://ann.example/', { method: 'CONNECT' })",
        "fetch('http://ann.example/', { headers: { 'a b': '1' } })",
        "fetch('http://ann.example/', { headers: { a: '1\\n2' } })",
        "fetch('http://ann.example/', { redirect: 'somehow' })",
        "fetch('http://ann.example/', { signal: {} })",
    ] {
        let reply = call(&mut vat, wrong);
        assert!(requests(&reply).is_empty() && settled(&reply)[0].0, "{wrong}");
    }
}

#[test]
fn an_answer_comes_in_a_crank_of_its_own() {
    let mut vat = vat();
    let reply = call(
        &mut vat,
        "fetch('http://ann.example/').then(async r => [r.status, r.ok, r.url, r.redirected, r.headers.get('X-A'), await r.text(), r.bodyUsed].join())",
    );
    let id = requests(&reply)[0].0;
    let reply = vat.answered(id, Ok(answer(201, "hällo")));
    assert_eq!(
        settled(&reply),
        [(false, "#\"201,true,https://ann.example/end,true,1,hällo,true\"".to_owned())]
    );
    assert!(settled(&vat.answered(id, Ok(answer(200, "again")))).is_empty());
    let reply = call(&mut vat, "fetch('http://ann.example/').then(r => r.json()).then(x => x.a[0] + 1)");
    let reply = vat.answered(requests(&reply)[0].0, Ok(answer(200, "{\"a\":[1]}")));
    assert_eq!(settled(&reply), [(false, "#2".to_owned())]);
    let reply = call(&mut vat, "fetch('http://ann.example/')");
    let reply = vat.answered(requests(&reply)[0].0, Err("connection refused".into()));
    let (rejected, body) = &settled(&reply)[0];
    assert!(
        *rejected && body.contains("fetch failed: connection refused") && body.contains("TypeError"),
        "{body}"
    );
}

#[test]
fn k139_an_aborted_request_is_over_for_the_vat() {
    let mut vat = vat();
    let reply = call(
        &mut vat,
        "globalThis.c = new AbortController(); fetch('http://ann.example/', { signal: c.signal })",
    );
    let id = requests(&reply)[0].0;
    let reply = call(&mut vat, "c.abort()");
    assert!(
        settled(&reply).iter().any(|(rejected, body)| *rejected && body.contains("AbortError")),
        "{reply:?}"
    );
    assert!(settled(&vat.answered(id, Ok(answer(200, "late")))).is_empty());
    let reply = call(&mut vat, "fetch('http://ann.example/', { signal: c.signal })");
    assert!(requests(&reply).is_empty() && settled(&reply)[0].0);
}
