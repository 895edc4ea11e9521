//! The command-line programs, `convert` and `tucano`: one file a subcommand, each an argument struct and a `run`.
//!
//! Exit codes: 0 done, 1 could not convert or verify, 2 bad usage. Errors go to the standard error stream, tables to the standard
//! output, JSON only where `--json` says.

mod blob;
pub mod boards;
mod budget;
pub mod check;
pub mod convert;
mod data;
pub mod inspect;
mod model;
mod progress;
pub mod run;
pub mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// `convert`.
#[derive(Debug, Parser)]
#[command(name = "convert", version, about = "Compress an ONNX model into a blob for microcontrollers")]
struct Convert {
    #[command(flatten)]
    arguments: convert::Arguments,
}

/// `tucano`.
#[derive(Debug, Parser)]
#[command(name = "tucano", version, about = "Convert, inspect and run compressed networks")]
struct Tucano {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compress an ONNX model into a blob (the program `convert`)
    Convert(Box<convert::Arguments>),
    /// Show what a blob holds: steps, shapes, kernels, memory
    Inspect(inspect::Arguments),
    /// Say whether a model can be converted, and if not, all that stands in the way
    Check(check::Arguments),
    /// Compare a blob with the model that it came from
    Verify(verify::Arguments),
    /// Run a blob on this machine
    Run(run::Arguments),
    /// Run a blob on emulated boards
    #[command(subcommand)]
    Boards(boards::BoardsArgs),
}

/// The program `convert`.
pub fn convert_main() -> ExitCode {
    exit(Convert::parse().arguments.run())
}

/// The program `tucano`.
pub fn tucano_main() -> ExitCode {
    exit(match Tucano::parse().command {
        Command::Convert(arguments) => arguments.run(),
        Command::Inspect(arguments) => arguments.run(),
        Command::Check(arguments) => arguments.run(),
        Command::Verify(arguments) => arguments.run(),
        Command::Run(arguments) => arguments.run(),
        Command::Boards(arguments) => boards::run(&arguments),
    })
}

fn exit(result: miette::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("{report:?}");
            ExitCode::FAILURE
        }
    }
}
