//! Kernel-made errors as vats see them: an ordinary `Error` whose message starts with a code (01 §7).

use crate::capdata::CapData;
use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $fatal:literal;)*) => {
        /// What a kernel-made error is about. Contract, unlike the detail text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code as written, e.g. `OBJECT_REVOKED`.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text,)* }
            }

            /// Whether the condition kills the vat that meets it.
            pub fn is_fatal(self) -> bool {
                match self { $(ErrorCode::$variant => $fatal,)* }
            }
        }
    };
}

error_codes! {
    /// The target is revoked.
    ObjectRevoked = "OBJECT_REVOKED", false;
    /// The target has no owner, or is unknown.
    ObjectDeleted = "OBJECT_DELETED", false;
    /// A message was sent to a promise that fulfilled to something else than one object.
    BadPromiseResolution = "BAD_PROMISE_RESOLUTION", false;
    /// The target's owner is recorded but does not run.
    EndpointUnreachable = "ENDPOINT_UNREACHABLE", false;
    /// The endpoint refused the delivery, or a kernel service threw.
    DeliveryFailed = "DELIVERY_FAILED", false;
    /// The vat deciding the promise was terminated.
    VatTerminated = "VAT_TERMINATED", false;
    /// The remote deciding the promise was given up.
    ConnectionLost = "CONNECTION_LOST", false;
    /// The remote deciding the promise lost its state.
    PeerRestarted = "PEER_RESTARTED", false;
    /// The vat broke the syscall rules.
    IllegalSyscall = "ILLEGAL_SYSCALL", true;
    /// A delivery failed inside the vat's runtime.
    InternalError = "INTERNAL_ERROR", true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error made by the kernel for a vat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError {
    /// What kind.
    pub code: ErrorCode,
    /// Text for people.
    pub detail: String,
}

impl std::error::Error for KernelError {}

/// The one place where a kernel error becomes text.
impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fatal = if self.code.is_fatal() { "VAT_FATAL:" } else { "" };
        write!(f, "[KERNEL:{fatal}{}] {}", self.code, self.detail)
    }
}

impl KernelError {
    /// An error with a detail of the caller's.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        KernelError { code, detail: detail.into() }
    }

    /// The target is revoked.
    pub fn object_revoked() -> Self {
        Self::new(ErrorCode::ObjectRevoked, "Target object has been revoked")
    }

    /// The target has no owner, or is unknown.
    pub fn object_deleted() -> Self {
        Self::new(ErrorCode::ObjectDeleted, "Target object has no owner; it may have been deleted")
    }

    /// The target promise fulfilled to something that takes no messages.
    pub fn bad_promise_resolution() -> Self {
        Self::new(
            ErrorCode::BadPromiseResolution,
            "Promise fulfilled but did not contain an object reference",
        )
    }

    /// The target's owner does not run.
    pub fn endpoint_unreachable() -> Self {
        Self::new(
            ErrorCode::EndpointUnreachable,
            "Target endpoint is unreachable (terminated or disconnected)",
        )
    }

    /// The delivery was refused, or a kernel service threw.
    pub fn delivery_failed(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::DeliveryFailed, detail)
    }

    /// The deciding vat was terminated, for this reason.
    pub fn vat_terminated(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::VatTerminated, reason)
    }

    /// The deciding remote was given up; `peer` is its peer id (03 C-22).
    pub fn connection_lost(peer: impl fmt::Display) -> Self {
        let detail = format!("Remote connection lost: {peer} (max retries reached or non-retryable error)");
        Self::new(ErrorCode::ConnectionLost, detail)
    }

    /// The deciding remote lost its state (03 D-5).
    pub fn peer_restarted() -> Self {
        Self::new(ErrorCode::PeerRestarted, "Remote peer restarted (incarnation changed)")
    }

    /// The vat broke the syscall rules.
    pub fn illegal_syscall() -> Self {
        Self::new(ErrorCode::IllegalSyscall, "Syscall translation error: prepare to die")
    }

    /// A delivery failed inside the vat's runtime, with this message of the runtime.
    pub fn internal_error(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InternalError, message)
    }

    /// Recognises the message of a kernel error; `None` for any other text, and for a code of the wrong class.
    pub fn parse(message: &str) -> Option<Self> {
        let (head, rest) = message.strip_prefix("[KERNEL:")?.split_once(']')?;
        let (fatal, name) = match head.strip_prefix("VAT_FATAL:") {
            Some(name) => (true, name),
            None => (false, head),
        };
        let code = *ErrorCode::ALL.iter().find(|code| code.as_str() == name)?;
        let detail = rest.strip_prefix(' ').unwrap_or(rest);
        (code.is_fatal() == fatal).then(|| KernelError::new(code, detail))
    }

    /// Returns the error as a value to reject a promise with; it has no slots, so it fits every reference space.
    pub fn to_capdata<R>(&self) -> CapData<R> {
        let message = serde_json::Value::from(self.to_string());
        CapData::data(format!(r##"#{{"#error":{message},"name":"Error"}}"##))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k17_every_code_is_detected_with_its_class() {
        for code in ErrorCode::ALL {
            let error = KernelError::new(*code, "why [not]");
            assert_eq!(KernelError::parse(&error.to_string()), Some(error));
        }
        assert!(ErrorCode::ALL.iter().filter(|code| code.is_fatal()).count() == 2);
        for plain in [
            "",
            "boom",
            "KERNEL:OBJECT_DELETED",
            " [KERNEL:OBJECT_DELETED] x",
            "[KERNEL:NO_SUCH] x",
            "[KERNEL:",
        ] {
            assert_eq!(KernelError::parse(plain), None, "{plain}");
        }
        assert_eq!(KernelError::parse("[KERNEL:VAT_FATAL:OBJECT_DELETED] x"), None);
    }

    #[test]
    fn rendered_as_an_ordinary_error() {
        let value: CapData<crate::id::KRef> = KernelError::internal_error("lost \"o+10\"").to_capdata();
        let body = r##"#{"#error":"[KERNEL:VAT_FATAL:INTERNAL_ERROR] lost \"o+10\"","name":"Error"}"##;
        assert_eq!((value.body.as_ref(), value.slots.len()), (body, 0));
    }

    #[test]
    fn every_kind_of_error_has_its_code_and_text_and_is_recognised() {
        let made = [
            (KernelError::object_revoked(), "[KERNEL:OBJECT_REVOKED] "),
            (KernelError::object_deleted(), "[KERNEL:OBJECT_DELETED] "),
            (KernelError::bad_promise_resolution(), "[KERNEL:BAD_PROMISE_RESOLUTION] "),
            (KernelError::endpoint_unreachable(), "[KERNEL:ENDPOINT_UNREACHABLE] "),
            (KernelError::delivery_failed("no"), "[KERNEL:DELIVERY_FAILED] no"),
            (KernelError::vat_terminated("done"), "[KERNEL:VAT_TERMINATED] done"),
            (KernelError::connection_lost("12D3"), "[KERNEL:CONNECTION_LOST] Remote connection lost: 12D3 "),
            (
                KernelError::peer_restarted(),
                "[KERNEL:PEER_RESTARTED] Remote peer restarted (incarnation changed)",
            ),
            (KernelError::illegal_syscall(), "[KERNEL:VAT_FATAL:ILLEGAL_SYSCALL] "),
            (KernelError::internal_error("stack"), "[KERNEL:VAT_FATAL:INTERNAL_ERROR] stack"),
        ];
        assert_eq!(made.len(), ErrorCode::ALL.len());
        for (error, beginning) in made {
            assert!(error.to_string().starts_with(beginning), "{error}");
            assert_eq!(KernelError::parse(&error.to_string()), Some(error.clone()));
            assert!(error.to_capdata::<crate::id::KRef>().body.contains(error.code.as_str()), "{error}");
        }
    }
}
