//! Native parts of the globals that a vat's configuration asks for (04 §2). Each vat has its own; they end with it.

use crate::timers::Timers;
use crate::workers::Exists;
use capstan_model::id::VatId;
use capstan_model::vat::{Endowments, FileAccess, GLOBALS};
use hmac::{Hmac, KeyInit, Mac};
use rquickjs::{Ctx, Exception, Function, Object, Result, TypedArray};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use url::{Url, quirks};

/// Bytes of one draw; the realm's side asks for less.
const RANDOM_BYTES_MAX: u32 = 65_536;

pub(crate) type SharedTimers = Arc<Mutex<Timers>>;

pub(crate) fn lock(timers: &SharedTimers) -> MutexGuard<'_, Timers> {
    timers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks what a vat asks for against the host's restriction (none: the whole list).
pub(crate) fn check(
    vat: VatId,
    endowments: &Endowments,
    allowed: Option<&[Arc<str>]>,
) -> std::result::Result<(), String> {
    for name in &endowments.globals {
        let known = GLOBALS.contains(&&**name) && allowed.is_none_or(|allowed| allowed.contains(name));
        if !known {
            return Err(format!("Vat \"{vat}\" requested unknown global \"{name}\""));
        }
    }
    if endowments.globals.iter().any(|name| &**name == "fetch") && endowments.allowed_hosts.is_none() {
        return Err(format!("Vat \"{vat}\" requested \"fetch\" but no network.allowedHosts was specified"));
    }
    Ok(())
}

/// Returns the modules of the realm that offer what is asked for.
pub(crate) fn modules(endowments: &Endowments) -> Vec<&'static str> {
    let mut modules: Vec<&'static str> =
        endowments.globals.iter().filter_map(|name| module_of(name)).collect();
    modules.extend(endowments.files.as_ref().map(|_| "capstan:files"));
    modules.sort_unstable();
    modules.dedup();
    modules
}

/// Dates and chance are tamed rather than added, in the realm's lockdown.
fn module_of(global: &str) -> Option<&'static str> {
    match global {
        "setTimeout" | "clearTimeout" | "setInterval" | "clearInterval" => Some("capstan:timers"),
        "TextEncoder" | "TextDecoder" | "atob" | "btoa" => Some("capstan:codecs"),
        "URL" | "URLSearchParams" => Some("capstan:url"),
        "AbortController" | "AbortSignal" => Some("capstan:abort"),
        "crypto" | "SubtleCrypto" => Some("capstan:crypto"),
        "fetch" | "Request" | "Headers" | "Response" => Some("capstan:fetch"),
        _ => None,
    }
}

/// Adds the native functions to the object through which the runtime reaches its host. Vat code never sees it, and
/// the runtime gives on only what was asked for.
pub(crate) fn natives<'js>(
    ctx: &Ctx<'js>,
    host: &Object<'js>,
    endowments: &Endowments,
    timers: &SharedTimers,
    exists: &Exists,
) -> Result<()> {
    let names: Vec<&str> = endowments.globals.iter().map(|name| &**name).collect();
    host.set("globals", names)?;
    let hosts = endowments.allowed_hosts.iter().flatten().map(|host| &**host);
    host.set("allowedHosts", hosts.collect::<Vec<&str>>())?;
    if let Some(access) = &endowments.files {
        files(ctx, host, access, exists)?;
    }
    clock(ctx, host, timers)?;
    chance(ctx, host)?;
    text(ctx, host)?;
    urls(ctx, host)
}

/// Looking is an order that the realm's side gives; only whether a file exists is told at once.
fn files<'js>(ctx: &Ctx<'js>, host: &Object<'js>, access: &FileAccess, exists: &Exists) -> Result<()> {
    let given = Object::new(ctx.clone())?;
    given.set("existsSync", access.exists_sync)?;
    given.set("readFile", access.read_file)?;
    given.set("access", access.access)?;
    host.set("files", given)?;
    let (access, exists) = (access.clone(), exists.clone());
    let exists = move |ctx: Ctx<'js>, path: String| {
        exists(&access, &path).map_err(|why| Exception::throw_message(&ctx, &why))
    };
    host.set("exists", Function::new(ctx.clone(), exists)?)
}

fn clock<'js>(ctx: &Ctx<'js>, host: &Object<'js>, timers: &SharedTimers) -> Result<()> {
    let last = Mutex::new(0.0_f64);
    let now = move || {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last.max(jittered_millis());
        *last
    };
    host.set("now", Function::new(ctx.clone(), now)?)?;
    let of = timers.clone();
    let set = move |id: u32, millis: f64| {
        // Negative, infinite and absent delays are none.
        let delay = Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default();
        lock(&of).set(Instant::now(), id, delay)
    };
    host.set("setTimer", Function::new(ctx.clone(), set)?)?;
    let of = timers.clone();
    host.set("clearTimer", Function::new(ctx.clone(), move |id: u32| lock(&of).clear(id))?)
}

/// The wall clock, whole milliseconds since 1970, moved forward by chance by up to one.
fn jittered_millis() -> f64 {
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0;
    (real + unit().unwrap_or_default()).floor()
}

/// A number of [0, 1) with 53 random bits.
fn unit() -> std::result::Result<f64, getrandom::Error> {
    let bits = getrandom::u64()? >> 11;
    Ok(bits as f64 / (1_u64 << 53) as f64)
}

fn no_chance(ctx: &Ctx<'_>, why: getrandom::Error) -> rquickjs::Error {
    Exception::throw_message(ctx, &format!("no randomness: {why}"))
}

fn chance<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    let random = |ctx: Ctx<'js>| unit().map_err(|why| no_chance(&ctx, why));
    host.set("random", Function::new(ctx.clone(), random)?)?;
    let bytes = |ctx: Ctx<'js>, count: u32| {
        let mut bytes = vec![0; count.min(RANDOM_BYTES_MAX) as usize];
        getrandom::fill(&mut bytes).map_err(|why| no_chance(&ctx, why))?;
        TypedArray::new_copy(ctx, bytes)
    };
    host.set("randomBytes", Function::new(ctx.clone(), bytes)?)?;
    let digest = |ctx: Ctx<'js>, name: String, data: TypedArray<'js, u8>| {
        let data = bytes_of(&ctx, &data)?;
        let digest = match name.as_str() {
            "SHA-256" => Sha256::digest(data).to_vec(),
            "SHA-384" => Sha384::digest(data).to_vec(),
            _ => Sha512::digest(data).to_vec(),
        };
        TypedArray::new_copy(ctx, digest)
    };
    host.set("digest", Function::new(ctx.clone(), digest)?)?;
    let sign = |ctx: Ctx<'js>, name: String, key: TypedArray<'js, u8>, data: TypedArray<'js, u8>| {
        let tag = match mac(&name, &bytes_of(&ctx, &key)?, &bytes_of(&ctx, &data)?) {
            Some(Tag::Short(tag)) => tag.finalize().into_bytes().to_vec(),
            Some(Tag::Middle(tag)) => tag.finalize().into_bytes().to_vec(),
            Some(Tag::Long(tag)) => tag.finalize().into_bytes().to_vec(),
            None => return Err(Exception::throw_type(&ctx, "the key does not fit")),
        };
        TypedArray::new_copy(ctx, tag)
    };
    host.set("hmac", Function::new(ctx.clone(), sign)?)?;
    let verify = |ctx: Ctx<'js>,
                  name: String,
                  key: TypedArray<'js, u8>,
                  data: TypedArray<'js, u8>,
                  tag: TypedArray<'js, u8>| {
        let (key, data, tag) = (bytes_of(&ctx, &key)?, bytes_of(&ctx, &data)?, bytes_of(&ctx, &tag)?);
        Ok::<bool, rquickjs::Error>(match mac(&name, &key, &data) {
            Some(Tag::Short(of)) => of.verify_slice(&tag).is_ok(),
            Some(Tag::Middle(of)) => of.verify_slice(&tag).is_ok(),
            Some(Tag::Long(of)) => of.verify_slice(&tag).is_ok(),
            None => false,
        })
    };
    host.set("hmacVerify", Function::new(ctx.clone(), verify)?)
}

/// A message authentication in the making, by the length of its hash.
enum Tag {
    Short(Hmac<Sha256>),
    Middle(Hmac<Sha384>),
    Long(Hmac<Sha512>),
}

fn mac(hash: &str, key: &[u8], data: &[u8]) -> Option<Tag> {
    Some(match hash {
        "SHA-256" => Tag::Short(Hmac::new_from_slice(key).ok()?.chain_update(data)),
        "SHA-384" => Tag::Middle(Hmac::new_from_slice(key).ok()?.chain_update(data)),
        _ => Tag::Long(Hmac::new_from_slice(key).ok()?.chain_update(data)),
    })
}

/// Copies what is in an array, unless its buffer is detached.
#[expect(unsafe_code, reason = "the bytes are copied before anything else can run in the realm")]
pub(crate) fn bytes(array: &TypedArray<'_, u8>) -> Option<Vec<u8>> {
    // SAFETY: `array` is alive, and no code of the realm, which alone could detach or resize its buffer, runs here.
    unsafe { array.as_bytes() }.map(<[u8]>::to_vec)
}

fn bytes_of(ctx: &Ctx<'_>, array: &TypedArray<'_, u8>) -> Result<Vec<u8>> {
    bytes(array).ok_or_else(|| Exception::throw_type(ctx, "the buffer is detached"))
}

fn text<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    let encode = |ctx: Ctx<'js>, text: String| TypedArray::new_copy(ctx, text.into_bytes());
    host.set("utf8Encode", Function::new(ctx.clone(), encode)?)?;
    // Strict decoding of bytes that are not UTF-8 gives nothing.
    let decode = |ctx: Ctx<'js>, bytes: TypedArray<'js, u8>, strict: bool| -> Result<Option<String>> {
        let bytes = bytes_of(&ctx, &bytes)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(_) if strict => None,
            Err(error) => Some(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        })
    };
    let decode = move |ctx: Ctx<'js>, bytes, strict| or_undefined(&ctx, decode(ctx.clone(), bytes, strict)?);
    host.set("utf8Decode", Function::new(ctx.clone(), decode)?)?;
    let unfinished = |ctx: Ctx<'js>, bytes: TypedArray<'js, u8>| -> Result<u32> {
        let bytes = bytes_of(&ctx, &bytes)?;
        let last = bytes.utf8_chunks().last();
        let rest = last.map_or(&[][..], |chunk| chunk.invalid());
        let open = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
        // At most three bytes.
        Ok(if open { rest.len() as u32 } else { 0 })
    };
    host.set("utf8Unfinished", Function::new(ctx.clone(), unfinished)?)
}

fn or_undefined<'js, T: rquickjs::IntoJs<'js>>(
    ctx: &Ctx<'js>,
    value: Option<T>,
) -> Result<rquickjs::Value<'js>> {
    match value {
        Some(value) => value.into_js(ctx),
        None => Ok(rquickjs::Value::new_undefined(ctx.clone())),
    }
}

fn urls<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    let parse = |ctx: Ctx<'js>, url: String, base: rquickjs::function::Opt<Option<String>>| {
        or_undefined(&ctx, parse_url(&url, base.0.flatten().as_deref()).map(|url| parts(&url)))
    };
    host.set("urlParse", Function::new(ctx.clone(), parse)?)?;
    let set = |ctx: Ctx<'js>, href: String, part: String, value: String| {
        or_undefined(&ctx, changed_url(&href, &part, &value).map(|url| parts(&url)))
    };
    host.set("urlSet", Function::new(ctx.clone(), set)?)
}

fn parse_url(url: &str, base: Option<&str>) -> Option<Url> {
    match base {
        Some(base) => Url::parse(base).ok()?.join(url).ok(),
        None => Url::parse(url).ok(),
    }
}

fn changed_url(href: &str, part: &str, value: &str) -> Option<Url> {
    let mut url = Url::parse(href).ok()?;
    match part {
        "href" => return Url::parse(value).ok(),
        "protocol" => quirks::set_protocol(&mut url, value).ok()?,
        "username" => quirks::set_username(&mut url, value).ok()?,
        "password" => quirks::set_password(&mut url, value).ok()?,
        "host" => quirks::set_host(&mut url, value).ok()?,
        "hostname" => quirks::set_hostname(&mut url, value).ok()?,
        "port" => quirks::set_port(&mut url, value).ok()?,
        "pathname" => quirks::set_pathname(&mut url, value),
        "search" => quirks::set_search(&mut url, value),
        _ => quirks::set_hash(&mut url, value),
    }
    Some(url)
}

/// In the order that the realm's side knows.
fn parts(url: &Url) -> Vec<String> {
    let parts = [
        quirks::href(url),
        quirks::protocol(url),
        quirks::username(url),
        quirks::password(url),
        quirks::host(url),
        quirks::hostname(url),
        quirks::port(url),
        quirks::pathname(url),
        quirks::search(url),
        quirks::hash(url),
    ];
    parts.into_iter().map(str::to_owned).chain([quirks::origin(url)]).collect()
}
