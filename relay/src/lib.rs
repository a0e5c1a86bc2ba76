//! The relay: pairs machines, forwards terminal streams to browsers, keeps shared state, serves the web app.
//!
//! `main.rs` is thin; everything is here so that tests can run a relay inside their own process.

pub mod accept;
pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod db;
pub mod embed;
pub mod http;
pub mod hub;
pub mod job;
pub mod postgres;
pub mod serve;
pub(crate) mod text;
pub mod tls;
pub mod ws;
