//! `convert`: see [`tucano_converter::cli`].

fn main() -> std::process::ExitCode {
    tucano_converter::cli::convert_main()
}
