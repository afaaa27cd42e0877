//! Names and bytes: what keys and channels are called, and how the frames are laid out.

pub(crate) mod frame;
#[cfg(test)]
mod hostile_test;
pub(crate) mod keys;
