//! Requests and responses as JSON.

use super::error::RpcError;
use serde_json::{Value as Json, json};

/// One request.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    /// Echoed in the response; null if absent.
    pub(crate) id: Json,
    /// What to do.
    pub(crate) method: String,
    /// With what; an empty list if absent.
    pub(crate) params: Json,
}

/// Reads a request; a refusal comes with the id to answer under.
pub(crate) fn parse_request(line: &[u8]) -> Result<Request, (Json, RpcError)> {
    let json: Json = serde_json::from_slice(line)
        .map_err(|error| (Json::Null, RpcError::new(super::error::PARSE, error.to_string())))?;
    let id = match json.get("id") {
        Some(id @ (Json::String(_) | Json::Number(_))) => id.clone(),
        _ => Json::Null,
    };
    let Some(method) = json.get("method").and_then(Json::as_str) else {
        let error = RpcError::new(super::error::INVALID_REQUEST, "Invalid request: missing method");
        return Err((id, error));
    };
    let params = json.get("params").cloned().unwrap_or_else(|| json!([]));
    Ok(Request { id, method: method.to_owned(), params })
}

/// Writes a response, with its line end.
pub(crate) fn response(id: &Json, outcome: Result<Json, RpcError>) -> Vec<u8> {
    let json = match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    };
    let mut line = json.to_string().into_bytes();
    line.push(b'\n');
    line
}
