//! Names and bytes: what keys and channels are called, and how the frames are laid out.

pub(crate) mod frame;
pub(crate) mod keys;
