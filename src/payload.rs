//! Payloads: from the caller's types to MessagePack and back. In between they are opaque bytes.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::JobId;

/// Structs are written as maps with the fields' names: fields can be added later, and other languages can read it.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, most: usize) -> Result<Bytes> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|source| {
        Error::new(ErrorKind::Encode, "the payload cannot be written as MessagePack; look at its Serialize")
            .with_source(source)
    })?;
    if bytes.len() > most {
        return Err(Error::new(
            ErrorKind::PayloadTooLarge,
            format!(
                "the payload is {} bytes and at most {most} are allowed; store it elsewhere and add where it is, or raise \
                 max_payload",
                bytes.len()
            ),
        ));
    }
    Ok(bytes.into())
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(payload: &'a Bytes, job: &JobId) -> Result<T> {
    rmp_serde::from_slice(payload).map_err(|source| {
        let wanted = std::any::type_name::<T>();
        let text = format!("the payload is not a {wanted}; ask for the type that was added");
        Error::new(ErrorKind::Decode, text).with_job(job.clone()).with_source(Fault::from(source))
    })
}

/// What the decoder complained of, without what it found: its text may quote the payload.
#[derive(Debug)]
struct Fault(&'static str);

impl From<rmp_serde::decode::Error> for Fault {
    fn from(error: rmp_serde::decode::Error) -> Self {
        use rmp_serde::decode::Error as E;
        Self(match error {
            E::InvalidMarkerRead(_) | E::InvalidDataRead(_) => "it ends too early",
            E::TypeMismatch(_) => "a value is of another type",
            E::OutOfRange => "a number does not fit",
            E::LengthMismatch(_) => "an array has another length",
            E::Utf8Error(_) => "a string is not UTF-8",
            E::DepthLimitExceeded => "it is nested too deep",
            E::Uncategorized(_) | E::Syntax(_) => "its shape is another one",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}
