//! The `tenantd` program: reads the command line and the configuration, runs one command, ends with a code.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    // One thread: the server does the work, a twelfth of a core is ours in a rollout, and to wake a second thread
    // takes longer than what it would do.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tenantd: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::run(arguments)) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("tenantd: {error}");
            cli::Code::of(&error).into()
        }
    }
}
