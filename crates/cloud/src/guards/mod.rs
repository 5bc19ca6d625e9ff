//! What stands around every request, before and after its handler.

mod client;
mod request_id;

pub use client::client_address;
pub(crate) use request_id::HEADER as REQUEST_ID;
pub use request_id::RequestId;
