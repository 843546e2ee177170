//! The benchmarks' own origin and load generator. Both run on one thread, so that a core given to them is all they use.
//!
//! - `load origin LISTEN CA_OUT CREDENTIAL H2`: a TLS origin that answers 401 unless the real credential arrived
//! - `load run PLAN`: makes the load that the JSON text says, and prints what came of it as JSON

mod client;
mod origin;
mod plan;
mod process;
mod run;

use std::process::ExitCode;

/// Everything that can go wrong ends the run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| match words.as_slice() {
        ["origin", listen, ca_out, credential, h2] => {
            runtime.block_on(origin::run(listen, ca_out, credential, *h2 == "h2"))
        }
        ["run", plan] => runtime.block_on(async {
            let outcome = run::run(&serde_json::from_str(plan)?).await?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }),
        _ => Err("load origin LISTEN CA_OUT CREDENTIAL h1|h2 | load run PLAN".into()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
