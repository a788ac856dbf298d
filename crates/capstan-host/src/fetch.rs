//! Requests of vats to the web (04 §3), with every hop checked against the hosts that the vat may reach.

use capstan_model::fetch::{FetchOutcome, FetchRequest, FetchResponse, Redirects};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Hops of one request, as browsers have it.
const HOPS_MAX: usize = 20;
/// The longest body of an answer, bytes.
const BODY_BYTES_MAX: u64 = 10_000_000;
/// The longest program, bytes.
const CODE_BYTES_MAX: u64 = 64 << 20;
/// No request takes longer.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Makes what one request is sent with; shutting it down cuts the request.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(TIME_MAX))
        .proxy(None)
        .build()
        .into()
}

/// Refuses a URL whose host is not listed; ports and schemes do not matter, but files are no network.
fn check(url: &Url, hosts: &[Arc<str>]) -> Result<(), String> {
    if url.scheme() == "file" {
        return Err("file: URLs cannot be fetched".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    if hosts.iter().any(|listed| **listed == *host) { Ok(()) } else { Err(format!("Invalid host: {host}")) }
}

/// Asks, from hop to hop, and reads the whole answer. Blocks.
pub(crate) fn fetch(agent: &ureq::Agent, request: &FetchRequest, hosts: &[Arc<str>]) -> FetchOutcome {
    let mut url = Url::parse(&request.url).map_err(|why| format!("Invalid URL: {why}"))?;
    let mut hop = request.clone();
    for hops in 0..HOPS_MAX {
        check(&url, hosts)?;
        let mut response = send(agent, &url, &hop)?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|to| to.to_str().ok());
        let next = match (matches!(status, 301 | 302 | 303 | 307 | 308), location) {
            (true, Some(to)) if request.redirects != Redirects::Manual => {
                Some(url.join(to).map_err(|why| format!("redirected to an invalid URL: {why}"))?)
            }
            (_, Some(_) | None) => None,
        };
        let Some(next) = next else {
            let pairs = response.headers().iter().map(|(name, value)| {
                (name.as_str().into(), String::from_utf8_lossy(value.as_bytes()).into())
            });
            let headers = pairs.collect();
            let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec();
            let body = body.map_err(|why| format!("the answer was not read: {why}"))?;
            let url = url.to_string();
            return Ok(FetchResponse { status, url, redirected: hops > 0, headers, body });
        };
        if request.redirects == Redirects::Error {
            return Err(format!("redirected to {next}"));
        }
        check(&next, hosts)?;
        let elsewhere = next.host_str() != url.host_str();
        if elsewhere && request.redirects == Redirects::SameHost {
            return Err(format!("redirected to another host: {next}"));
        }
        follow(&mut hop, status, elsewhere || next.scheme() != url.scheme() || next.port() != url.port());
        url = next;
    }
    Err(format!("more than {HOPS_MAX} redirects"))
}

/// Changes a request for the next hop as the fetch standard says.
fn follow(hop: &mut FetchRequest, status: u16, other_origin: bool) {
    let becomes_get = (status == 303 && !matches!(&*hop.method, "GET" | "HEAD"))
        || (matches!(status, 301 | 302) && &*hop.method == "POST");
    if becomes_get {
        hop.method = "GET".into();
        hop.body = None;
        hop.headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("content-"));
    }
    if other_origin {
        let secret = |name: &str| matches!(name, "authorization" | "cookie" | "proxy-authorization");
        hop.headers.retain(|(name, _)| !secret(&name.to_ascii_lowercase()));
    }
}

fn send(
    agent: &ureq::Agent,
    url: &Url,
    request: &FetchRequest,
) -> Result<ureq::http::Response<ureq::Body>, String> {
    let mut builder = ureq::http::Request::builder().method(&*request.method).uri(url.as_str());
    for (name, value) in &request.headers {
        builder = builder.header(&**name, &**value);
    }
    let answer = match &request.body {
        Some(body) => agent.run(builder.body(body.as_slice()).map_err(|why| why.to_string())?),
        None => agent.run(builder.body(()).map_err(|why| why.to_string())?),
    };
    answer.map_err(|why| why.to_string())
}

/// Reads a program from the web (04 §4). Blocks.
///
/// # Errors
/// A few words that name the URL.
pub fn fetch_code(url: &str) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("fetch of user code {url} failed: {why}");
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIME_MAX))
        .proxy(None)
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|why| failed(&why))?;
    if !response.status().is_success() {
        return Err(failed(&response.status()));
    }
    response.body_mut().with_config().limit(CODE_BYTES_MAX).read_to_string().map_err(|why| failed(&why))
}
