//! One test binary: the real `regentctl` against a fake coordinator.

mod certificates;
mod commands;
mod members;
mod restraint;
mod samples;
mod support;
