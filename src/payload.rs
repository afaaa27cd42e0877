//! Payloads: from the caller's types to MessagePack and back. In between they are opaque bytes.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use rmp::Marker;
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
        Error::new(ErrorKind::Decode, format!("the payload is not a {wanted}"))
            .with_job(job.clone())
            .with_source(Fault::from(source))
            .note("ask for the type that was added")
    })
}

/// What the decoder complained of, without what it found: its text may quote the payload. The names of fields and types are
/// the reader's own.
#[derive(Debug)]
struct Fault(Cow<'static, str>);

impl From<rmp_serde::decode::Error> for Fault {
    fn from(error: rmp_serde::decode::Error) -> Self {
        use rmp_serde::decode::Error as E;
        Self(match error {
            E::InvalidMarkerRead(_) | E::InvalidDataRead(_) => "it ends too early".into(),
            E::TypeMismatch(found) => format!("a value is {}, which was not expected", kind_of(found)).into(),
            E::OutOfRange => "a number does not fit".into(),
            E::LengthMismatch(_) => "an array has another length".into(),
            E::Utf8Error(_) => "a string is not UTF-8".into(),
            E::DepthLimitExceeded => "it is nested too deep".into(),
            E::Uncategorized(text) | E::Syntax(text) => {
                readers_own(&text).map_or("its shape is another one".into(), Cow::Owned)
            }
        })
    }
}

/// Of what kind a value is, without the value, which a short one's marker has in it.
fn kind_of(marker: Marker) -> &'static str {
    use Marker as M;
    match marker {
        M::Null => "nil",
        M::True | M::False => "a boolean",
        M::FixPos(_) | M::FixNeg(_) | M::U8 | M::U16 | M::U32 | M::U64 | M::I8 | M::I16 | M::I32 | M::I64 => {
            "an integer"
        }
        M::F32 | M::F64 => "a float",
        M::FixStr(_) | M::Str8 | M::Str16 | M::Str32 => "a string",
        M::Bin8 | M::Bin16 | M::Bin32 => "bytes",
        M::FixArray(_) | M::Array16 | M::Array32 => "a sequence",
        M::FixMap(_) | M::Map16 | M::Map32 => "a map",
        M::FixExt1 | M::FixExt2 | M::FixExt4 | M::FixExt8 | M::FixExt16 | M::Ext8 | M::Ext16 | M::Ext32 => {
            "an extension"
        }
        M::Reserved => "nothing that MessagePack knows",
    }
}

/// The part of serde's text that comes from the type that was asked for; `None` for a text that is not serde's.
fn readers_own(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix("missing field `") {
        return Some(format!("the field `{}` is missing", rest.split_once('`')?.0));
    }
    if let Some(rest) = text.strip_prefix("duplicate field `") {
        return Some(format!("the field `{}` is there twice", rest.split_once('`')?.0));
    }
    if text.starts_with("data did not match any variant of untagged enum ") {
        return Some(text.to_owned());
    }
    let found = [
        ("invalid type: ", "a value is of another type"),
        ("invalid value: ", "a value does not fit"),
        ("invalid length ", "a sequence has another length"),
        ("unknown field `", "it has a field that is not known"),
        ("unknown variant `", "it names a variant that is not known"),
    ];
    let (_, fault) = found.into_iter().find(|(begin, _)| text.starts_with(begin))?;
    // The last one is serde's: a value that is quoted comes before it.
    Some(match text.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{fault}, expected {expected}"),
        None => fault.to_owned(),
    })
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn encoded(value: &impl Serialize) -> Bytes {
        encode(value, 1 << 20).expect("it is written")
    }

    fn fault<T: DeserializeOwned>(value: &impl Serialize) -> String {
        let job = JobId::new("x").expect("an id");
        let error = decode::<T>(&encoded(value), &job).map(drop).expect_err("it is another type");
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        error.to_string()
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Mailbox {
        host: String,
        port: u16,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it can be read matters")]
    struct Strict {
        host: Protocol,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Protocol {
        Imap,
        Pop { tls: bool },
    }

    /// Promise: a payload that is not of the type says which field of the type it fails at, and never what it has.
    #[test]
    fn a_fault_names_what_the_reader_expects_and_no_value() {
        assert!(
            fault::<Mailbox>(&json!({ "port": 1, "hunter2": "hunter2" }))
                .contains("the field `host` is missing")
        );
        let text = fault::<Mailbox>(&json!({ "host": "h", "port": "hunter2, expected hunter2" }));
        assert!(text.contains("a value is a string, which was not expected; ask for"), "{text}");
        let text = fault::<Mailbox>(&json!({ "host": ["hunter2"], "port": 1 }));
        assert!(text.contains("a value is of another type, expected a string; ask for"), "{text}");
        assert!(fault::<Mailbox>(&json!({ "host": "h", "port": 70_000 })).contains("expected u16"));
        let text = fault::<Strict>(&json!({ "hunter2": 1 }));
        assert!(text.contains("a field that is not known, expected `host`"), "{text}");
        let text = fault::<Strict>(&json!({ "host": "hunter2" }));
        assert!(text.contains("expected `Imap` or `Pop`"), "{text}");
        assert!(fault::<(u8, u8, u8)>(&[1, 2]).contains("length"));
        assert!(fault::<JobId>(&"hunter2\u{7}").contains("its shape is another one"));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newer {
        port: u16,
        #[serde(default)]
        tls: bool,
        folder: Option<String>,
        #[serde(flatten)]
        account: Account,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Account {
        host: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Tagged {
        Imap { host: String },
        Pop,
    }

    /// Promise: what the documentation of `Job::payload` says of types that have changed since the job was added.
    #[test]
    fn types_may_change_as_serde_lets_them() {
        let job = JobId::new("x").expect("an id");
        let old = encoded(&Mailbox { host: "h".into(), port: 1 });
        let newer = Newer { port: 1, tls: false, folder: None, account: Account { host: "h".into() } };
        assert_eq!(decode::<Newer>(&old, &job).expect("a field with a default may be added"), newer);
        let passed_over: Account = decode(&old, &job).expect("fields that are not asked for are passed over");
        assert_eq!(passed_over.host, "h");
        assert_eq!(decode::<Newer>(&encoded(&newer), &job).expect("flatten both ways"), newer);
        for tagged in [Tagged::Imap { host: "h".into() }, Tagged::Pop] {
            assert_eq!(decode::<Tagged>(&encoded(&tagged), &job).expect("tags both ways"), tagged);
        }
        for variant in [Protocol::Imap, Protocol::Pop { tls: true }] {
            assert_eq!(decode::<Protocol>(&encoded(&variant), &job).expect("variants both ways"), variant);
        }
        let any: Value = decode(&old, &job).expect("without a type");
        assert_eq!(any, json!({ "host": "h", "port": 1 }));
    }
}
