//! The certificate machine (spec 08, Certificates).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod course;
mod rules;
mod support;
