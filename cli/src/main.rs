//! The `boltzmap` command.

fn main() -> std::process::ExitCode {
    boltzmap_cli::main()
}
