//! What went wrong with a request, so that the client can say it in its own codes.

use crate::error::{CliError, Code};
use crate::value;
use capstan_kernel::host_op::Refusal;
use capstan_model::capdata::CapData;
use capstan_model::error::{ErrorCode, KernelError};
use capstan_model::id::KRef;
use serde::{Deserialize, Serialize};

/// The line is not JSON.
pub(crate) const PARSE: i64 = -32700;
/// The JSON is no request.
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// The method is unknown.
pub(crate) const UNKNOWN_METHOD: i64 = -32601;
/// The parameters do not fit the method.
pub(crate) const INVALID_PARAMS: i64 = -32602;
/// The operation failed.
pub(crate) const FAILED: i64 = -32603;

/// The error object of a response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RpcError {
    /// JSON-RPC's number.
    pub(crate) code: i64,
    /// For people.
    pub(crate) message: String,
    /// For programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Box<ErrorDetail>>,
}

/// What a program should know about an error (01 §7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErrorDetail {
    /// The class, where the reference has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The code of the command line.
    pub(crate) code: String,
    /// With what a call or a bootstrap was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rejection: Option<CapData<KRef>>,
}

impl RpcError {
    /// An error that only the protocol knows.
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        RpcError { code, message: message.into(), data: None }
    }

    /// The parameters do not fit the method.
    pub(crate) fn params(why: impl std::fmt::Display) -> Self {
        RpcError::of(INVALID_PARAMS, Code::Usage, format!("Invalid params: {why}"))
    }

    /// The operation failed with a code of ours.
    pub(crate) fn failed(code: Code, message: impl Into<String>) -> Self {
        RpcError::of(FAILED, code, message.into())
    }

    /// A call, or with `code` a bootstrap, was rejected.
    pub(crate) fn rejected(rejection: CapData<KRef>, code: Option<Code>) -> Self {
        let error = value::rejection(&rejection);
        let code = code.unwrap_or(error.code);
        let detail = ErrorDetail { name: None, code: code.as_str().to_owned(), rejection: Some(rejection) };
        RpcError { code: FAILED, message: error.message, data: Some(Box::new(detail)) }
    }

    fn of(number: i64, code: Code, message: String) -> Self {
        let detail = ErrorDetail { name: None, code: code.as_str().to_owned(), rejection: None };
        RpcError { code: number, message, data: Some(Box::new(detail)) }
    }

    /// Whether it has this code of ours.
    pub(crate) fn is(&self, code: Code) -> bool {
        self.data.as_ref().is_some_and(|detail| detail.code == code.as_str())
    }

    fn named(mut self, name: &str) -> Self {
        if let Some(detail) = &mut self.data {
            detail.name = Some(name.to_owned());
        }
        self
    }

    /// What the command line makes of it.
    pub(crate) fn into_cli(self) -> CliError {
        let Some(detail) = self.data else {
            let code = if self.code == FAILED { Code::Internal } else { Code::Usage };
            return CliError::new(code, self.message);
        };
        let code = Code::parse(&detail.code);
        match detail.rejection {
            Some(rejection) if code == Code::Rejected => value::rejection(&rejection),
            Some(rejection) if code == Code::LaunchFailed => CliError {
                value: Some(Box::new(value::value_json(&rejection))),
                ..CliError::new(code, self.message)
            },
            Some(_) | None => CliError::new(code, self.message),
        }
    }
}

impl From<CliError> for RpcError {
    fn from(error: CliError) -> Self {
        let number = if error.code.exit() == 2 { INVALID_PARAMS } else { FAILED };
        RpcError::of(number, error.code, error.message)
    }
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            // A well-formed name that stands for nothing: the kernel was asked, and says what a call would be told.
            Refusal::BadReference(name) if name.parse::<KRef>().is_ok() => {
                let error = KernelError::object_deleted();
                RpcError::failed(Code::Kernel(error.code), format!("{error}: {name}"))
            }
            Refusal::BadReference(_) => RpcError::failed(Code::BadReference, text),
            Refusal::BadUrl(_) => RpcError::failed(Code::BadUrl, text),
            Refusal::BadConfig(_) => RpcError::failed(Code::BadConfig, text),
            Refusal::LaunchFailed(_) => RpcError::failed(Code::LaunchFailed, text),
            Refusal::BootstrapRejected(value) => RpcError::rejected(value, Some(Code::LaunchFailed)),
            Refusal::VatNotFound(_) => RpcError::failed(Code::VatNotFound, text).named("VatNotFoundError"),
            Refusal::VatNotRunning(_) => RpcError::failed(Code::Kernel(ErrorCode::EndpointUnreachable), text),
            Refusal::SubclusterNotFound(_) => {
                RpcError::failed(Code::SubclusterNotFound, text).named("SubclusterNotFoundError")
            }
            Refusal::SystemSubclusterNotFound(_) => RpcError::failed(Code::SubclusterNotFound, text),
            Refusal::CannotRevoke(_) => RpcError::failed(Code::BadReference, text),
            Refusal::Reset => RpcError::failed(Code::Internal, text),
            Refusal::ServiceRegistered(_) => RpcError::failed(Code::BadConfig, text),
            Refusal::PeerNotFound(_) => RpcError::failed(Code::PeerNotFound, text),
            Refusal::UrlUnknown(_) => RpcError::failed(Code::UrlUnknown, text),
            Refusal::RedemptionTimeout(_) => RpcError::failed(Code::RedemptionTimeout, text),
            Refusal::PeerRestarted => RpcError::failed(Code::Kernel(ErrorCode::PeerRestarted), text),
            Refusal::PeerUnreachable(_) | Refusal::Redemption(_) => {
                CliError::from_text(text, Code::PeerUnreachable).into()
            }
            Refusal::Internal(_) => RpcError::failed(Code::Internal, text),
        }
    }
}
