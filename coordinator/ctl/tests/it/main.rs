//! One test binary: the real `regentctl` against a fake coordinator.

mod certificates;
mod commands;
mod samples;
mod support;
