//! The only place that knows fred, and what the server answers.

pub(crate) mod connect;
pub(crate) mod error;
#[cfg(test)]
mod link_test;
mod login;
pub(crate) mod own;
pub(crate) mod reply;
pub(crate) mod route;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod store;
pub(crate) mod subscriber;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod url;
