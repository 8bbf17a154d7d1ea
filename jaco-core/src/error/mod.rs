//! The closed error set of spec 03: one code, one message, typed details, one hint.

mod code;
mod report;

pub use code::{ErrorCode, RpcStatus};
pub use report::{Error, Report, Span, Violation};
