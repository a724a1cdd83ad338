//! Arguments in, exit code out.

fn main() -> std::process::ExitCode {
    rosemary::run(std::env::args_os())
}
