//! Vats that fetch, against a server on the loopback (04 §3).

use crate::support::{call, host, methargs, single, within};
use capstan_host::Host;
use capstan_kernel::host_op::HostOp;
use capstan_model::id::ObjectId;
use capstan_model::vat::{FileAccess, VatLimits};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

const ASKER: &str = "import { Far } from '@endo/far';
const tell = promise => promise.then(async r => [r.status, r.url, r.redirected, await r.text()].join(' '), e => e.message);
export const buildRootObject = () => Far('root', { ask: (url, redirect) => tell(fetch(url, redirect === 'default' ? {} : { redirect })),
  post: (url, body) => tell(fetch(url, { method: 'POST', body, headers: { 'x-mine': 'yes' } })), big: () => 'y'.repeat(11000000), ok: () => 1 });";

/// A server that tells what it was asked. `/to?URL` redirects there.
fn server() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length, mut mine) = (String::new(), 0, String::new());
            lines.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                let line = line.trim_end().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
                if let Some(value) = line.strip_prefix("x-mine: ") {
                    mine = value.to_owned();
                }
            }
            let mut body = vec![0; length];
            lines.read_exact(&mut body).unwrap();
            let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
            told.lock().unwrap().push(target.clone());
            let reply = match target.strip_prefix("/to?") {
                Some(to) => format!(
                    "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ),
                None => {
                    let said = format!(
                        "{} {} {}",
                        first.split(' ').next().unwrap_or_default(),
                        mine,
                        String::from_utf8_lossy(&body)
                    );
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}",
                        said.len()
                    )
                }
            };
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    (port, asked)
}

async fn asker(host: &Host, hosts: &[&str]) -> ObjectId {
    let mut config = single(ASKER);
    for vat in &mut config.vats {
        vat.endowments.globals = vec!["fetch".into()];
        vat.endowments.allowed_hosts = Some(hosts.iter().map(|name| (*name).into()).collect());
    }
    within(host.launch(config)).await.expect("a launch").root
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k140_a_vat_fetches_from_a_host_that_it_may_reach() {
    let (port, asked) = server();
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let asker = asker(&host, &["127.0.0.1"]).await;
    let url = format!("http://127.0.0.1:{port}/a");
    let told = call(&host, asker, "ask", &format!("[\"{url}\",\"default\"]"), &[]).await;
    assert_eq!(told, format!("#\"200 {url} false GET  \""));
    let told = call(&host, asker, "post", &format!("[\"{url}\",\"body\"]"), &[]).await;
    assert_eq!(told, format!("#\"200 {url} false POST yes body\""));
    let other = format!("[\"http://localhost:{port}/b\",\"follow\"]");
    assert_eq!(call(&host, asker, "ask", &other, &[]).await, "#\"Invalid host: localhost\"");
    assert_eq!(*asked.lock().unwrap(), ["/a", "/a"]);
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k141_every_hop_is_checked() {
    let (port, asked) = server();
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let (narrow, wide) =
        (asker(&host, &["127.0.0.1"]).await, asker(&host, &["127.0.0.1", "localhost"]).await);
    let here = format!("http://127.0.0.1:{port}");
    let there = format!("http://localhost:{port}/there");
    let ask = async |who, path: &str, redirect: &str| {
        call(&host, who, "ask", &format!("[\"{here}{path}\",\"{redirect}\"]"), &[]).await
    };
    let away = format!("/to?{there}");
    // To a host that is not listed: refused, however it is asked for, and that host is never asked.
    for redirect in ["default", "follow"] {
        assert_eq!(ask(narrow, &away, redirect).await, "#\"Invalid host: localhost\"");
    }
    assert_eq!(ask(narrow, "/to?file:///etc/passwd", "follow").await, "#\"file: URLs cannot be fetched\"");
    assert!(asked.lock().unwrap().iter().all(|path| path != "/there"));
    // To a listed one only if asked for.
    assert_eq!(ask(wide, &away, "default").await, format!("#\"redirected to another host: {there}\""));
    let followed = ask(wide, &away, "follow").await;
    assert!(followed.starts_with(&format!("#\"200 {there} true GET")), "{followed}");
    // On the same host it goes on, unless it is not to.
    let followed = ask(narrow, "/to?/near", "default").await;
    assert!(followed.starts_with(&format!("#\"200 {here}/near true GET")), "{followed}");
    assert_eq!(ask(narrow, "/to?/near", "error").await, format!("#\"redirected to {here}/near\""));
    assert!(ask(narrow, "/to?/near", "manual").await.starts_with("#\"302 "));
    let endless = ask(narrow, "/to?/to?/to?/x", "default").await;
    assert!(endless.starts_with("#\"200 "), "{endless}");
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k139_what_a_vat_waits_for_is_cut_when_it_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = std::sync::mpsc::channel();
    // A server that reads what it is asked, never answers, and says when the other side has gone.
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        let mut lines = BufReader::new(stream).lines();
        while lines.next().unwrap().is_ok_and(|line| !line.is_empty()) {}
        tell.send("asked").unwrap();
        assert!(lines.next().is_none(), "the connection stays");
        tell.send("cut").unwrap();
    });
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let mut config = single(ASKER);
    for vat in &mut config.vats {
        vat.endowments.globals = vec!["fetch".into()];
        vat.endowments.allowed_hosts = Some(vec!["127.0.0.1".into()]);
    }
    let launched = within(host.launch(config)).await.expect("a launch");
    let asking = methargs("ask", &format!("[\"http://127.0.0.1:{port}/slow\",\"default\"]"), &[]);
    let (asked, ()) = within(async {
        let ended = async {
            let told = tokio::task::block_in_place(|| told.recv_timeout(crate::support::PATIENCE));
            assert_eq!(told, Ok("asked"));
            let (_, vat, _) = launched.vats.first().expect("a vat");
            host.request(HostOp::TerminateVat(*vat)).await.expect("an answer");
        };
        tokio::join!(host.send(launched.root.into(), asking), ended)
    })
    .await;
    assert!(asked.expect("a settlement").rejected);
    assert_eq!(tokio::task::block_in_place(|| told.recv_timeout(crate::support::PATIENCE)), Ok("cut"));
    within(host.stop()).await;
}

const READER: &str = "import { Far } from '@endo/far';
const tell = promise => promise.then(value => value ?? 'yes', error => error.message);
export const buildRootObject = () => Far('root', { read: path => tell(fs.promises.readFile(path, 'utf8')), access: path => tell(fs.promises.access(path)), exists: path => fs.existsSync(path) });";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vat_reads_files_below_its_directory_only() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("given");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a.txt"), "text").unwrap();
    std::os::unix::fs::symlink("../store.sqlite", root.join("link")).unwrap();
    let host = host(&home.path().join("home")).await;
    let mut config = single(READER);
    for vat in &mut config.vats {
        let root_dir = root.to_str().unwrap().into();
        vat.endowments.files =
            Some(FileAccess { root_dir, exists_sync: true, read_file: true, access: true });
    }
    let reader = within(host.launch(config)).await.expect("a launch").root;
    let ask =
        async |method: &str, path: &str| call(&host, reader, method, &format!("[\"{path}\"]"), &[]).await;
    assert_eq!(ask("read", "a.txt").await, "#\"text\"");
    assert_eq!(ask("access", "a.txt").await, "#\"yes\"");
    assert_eq!(ask("exists", "b.txt").await, "#false");
    assert_eq!(ask("read", "link").await, "#\"fs.readFile: Symlinks are prohibited: link\"");
    let outside = format!("#\"fs.access: ../home is outside allowed root {}\"", root.display());
    assert_eq!(ask("access", "../home").await, outside);
    within(host.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k95_a_vat_that_answers_with_too_much_ends_and_the_others_go_on() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let (big, other) = (asker(&host, &[]).await, asker(&host, &[]).await);
    let settled = within(host.send(big.into(), methargs("big", "[]", &[]))).await.expect("a settlement");
    assert!(
        settled.rejected && settled.value.body.contains("syscall capdata too large"),
        "{}",
        settled.value.body
    );
    assert_eq!(call(&host, other, "ok", "[]", &[]).await, "#1");
    let gone = within(host.send(big.into(), methargs("ok", "[]", &[]))).await.expect("a settlement");
    assert!(gone.rejected);
    assert!(VatLimits::default().body_units_max < 11_000_000);
    within(host.stop()).await;
}
