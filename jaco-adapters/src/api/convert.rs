//! Errors and documents to and from gRPC.

use jaco_core::error::{Error, ErrorCode, RpcStatus};
use serde::Serialize;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::transport::proto::v1::Document;

/// The metadata key of the JSON error object.
const ERROR_KEY: &str = "jaco-error-bin";

/// An error as a gRPC status that carries it whole.
pub(super) fn to_status(error: &Error) -> Status {
    let code = match error.code.rpc_status() {
        RpcStatus::InvalidArgument => Code::InvalidArgument,
        RpcStatus::FailedPrecondition => Code::FailedPrecondition,
        RpcStatus::AlreadyExists => Code::AlreadyExists,
        RpcStatus::NotFound => Code::NotFound,
        RpcStatus::Unavailable => Code::Unavailable,
        RpcStatus::Unauthenticated => Code::Unauthenticated,
        RpcStatus::PermissionDenied => Code::PermissionDenied,
        RpcStatus::DeadlineExceeded => Code::DeadlineExceeded,
        RpcStatus::ResourceExhausted => Code::ResourceExhausted,
        RpcStatus::Internal => Code::Internal,
    };
    let mut metadata = MetadataMap::new();
    if let Ok(json) = serde_json::to_vec(error) {
        metadata.insert_bin(ERROR_KEY, MetadataValue::from_bytes(&json));
    }
    Status::with_metadata(code, error.to_string(), metadata)
}

/// What a status says, when a daemon of ours made it; `None` for a failure of the transport.
pub(super) fn from_status(status: &Status) -> Option<Error> {
    let json = status.metadata().get_bin(ERROR_KEY)?.to_bytes().ok()?;
    serde_json::from_slice(&json).ok()
}

/// A document of one of the shapes of spec 09.
pub(super) fn document<T: Serialize>(value: &T) -> Result<Document, Status> {
    let json = serde_json::to_string(value).map_err(|error| to_status(&Error::internal(error)))?;
    Ok(Document { json })
}

/// A request that breaks its schema.
pub(super) fn invalid(field: &str, message: impl Into<String>) -> Status {
    to_status(&Error::new(ErrorCode::ValidationFailed, message).with("field", field))
}
