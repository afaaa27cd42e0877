//! Reading a script's reply: a flat array, front to back. A surprise is an error, never a panic.

use bytes::Bytes;
use fred::types::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, Revision, WorkerId};

pub(crate) struct Reply {
    script: &'static str,
    items: std::vec::IntoIter<Value>,
}

impl Reply {
    pub(crate) fn new(script: &'static str, value: Value) -> Result<Self> {
        match value {
            Value::Array(items) => Ok(Self { script, items: items.into_iter() }),
            _ => Err(Self::surprise(script)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.len() == 0
    }

    /// How many items are left: what bounds a buffer that is made for them.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn int(&mut self) -> Result<u64> {
        match self.items.next() {
            Some(Value::Integer(number)) => u64::try_from(number).map_err(|_| self.unexpected()),
            _ => Err(self.unexpected()),
        }
    }

    /// A number, or -1 for none.
    pub(crate) fn int_or_none(&mut self) -> Result<Option<u64>> {
        match self.items.next() {
            Some(Value::Integer(-1)) => Ok(None),
            Some(Value::Integer(number)) => u64::try_from(number).map(Some).map_err(|_| self.unexpected()),
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn revision(&mut self) -> Result<Revision> {
        self.int().map(Revision)
    }

    pub(crate) fn worker(&mut self) -> Result<WorkerId> {
        self.int().map(WorkerId)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes> {
        match self.items.next() {
            Some(Value::String(text)) => Ok(text.into_inner()),
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.unexpected())
    }

    pub(crate) fn job(&mut self) -> Result<JobId> {
        let text = self.text()?;
        JobId::new(text).map_err(|_| self.unexpected())
    }

    pub(crate) fn unexpected(&self) -> Error {
        Self::surprise(self.script)
    }

    fn surprise(script: &'static str) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!(
                "the server's answer to '{script}' was not understood: does something else write to the cluster's keys?"
            ),
        )
    }
}
