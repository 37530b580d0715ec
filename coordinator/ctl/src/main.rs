//! `regentctl`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    regent_pki::install_crypto();
    regentctl::main()
}
