//! The programs that go onto a Raspberry Pi, run here under emulation against a real cloud: `make pi-check`.

use anyhow::{Context, Result, ensure};
use lumbung_tests::ledger;
use lumbung_tests::programs::{Program, profile_dir, tool};
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, eventually_within, when};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const TAPPED: &str = "04A22B1C5D6E80";

#[test]
#[ignore = "needs the Pi's programs and qemu-user-static: make pi-check"]
fn the_64_bit_gateway_keeps_scans_and_delivers_them() -> Result<()> {
    on_a_pi("arm64", "qemu-aarch64-static", "/usr/aarch64-linux-gnu")
}

#[test]
#[ignore = "needs the Pi's programs and qemu-user-static: make pi-check"]
fn the_32_bit_gateway_keeps_scans_and_delivers_them() -> Result<()> {
    on_a_pi("armhf", "qemu-arm-static", "/usr/arm-linux-gnueabihf")
}

/// From enrolment to the cloud's table, every step by the Pi's program; `libraries` are the Pi's own.
fn on_a_pi(architecture: &str, emulator: &str, libraries: &str) -> Result<()> {
    let profile = profile_dir()?;
    let target = profile.parent().context("the profile has no parent")?;
    let program = target.join("packages").join(architecture).join("lumbung-gateway");
    ensure!(program.is_file(), "{} is not there: make pi", program.display());
    let emulator = tool(emulator).context("apt-get install qemu-user-static")?;
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let mut gateway = stand.bare_gateway("GW-PI")?;
        gateway.with_binary(program).under(vec![emulator.into(), "-L".into(), libraries.into()]);
        gateway.set("reader.kind", "simulated").set("reader.simulated.interval", "500ms");
        gateway.set("reader.simulated.tags", TAPPED);
        let claim = cloud.claim("GW-PI").await?;
        gateway.enrol(&cloud.base(), &claim.claim).await?;
        gateway.start().await?;
        let mut posted = gateway.scan_many("PI", 10).await?;
        // The plug is pulled; what was acknowledged is still there.
        gateway.kill();
        gateway.start().await?;
        posted.extend(gateway.scan_many("LAGI", 10).await?);
        eventually("the simulated reader has tapped", || async {
            Ok(when(gateway.tags()?.iter().any(|tag| tag == TAPPED)))
        })
        .await?;
        let database = cloud.database().await?;
        eventually("the cloud holds each posted scan once, and a tap", || async {
            let held = ledger::held(&database).await?;
            let times = |tag: &str| held.iter().filter(|row| row.tag == tag).count();
            Ok(when(posted.iter().all(|tag| times(tag) == 1) && times(TAPPED) > 0))
        })
        .await?;
        let status = gateway.cli(&["--lang", "en", "status"]).await?.ok()?;
        gateway.stop().await?;
        println!("{architecture}: {} records kept and delivered\n{status}", gateway.tags()?.len());
        Ok(())
    })
}

/// A Pi boots in half a minute; a busy machine may need several times as long.
const BOOT: Duration = Duration::from_secs(180);

#[test]
#[ignore = "needs QEMU and a kernel, which it fetches: make pi-emulated"]
fn an_emulated_pi_reads_its_thermometer_and_the_cloud_hears_of_it() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let claim = cloud.claim("GW-PI").await?;
        let qmp = stand.path().join("qmp");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pi-emulated.sh");
        let mut command = Command::new(script);
        command.arg(cloud.port.to_string()).arg(&claim.claim).arg(&qmp);
        let mut pi = Program::start("the emulated Pi", &mut command, &stand.log("pi"))?;
        // Long before the Pi has booted.
        eventually("QEMU is told how warm it is", || async { warm(&qmp, 4_500).map(Some) }).await?;
        eventually_within(BOOT, "the cloud hears of 4.5 degrees", || async {
            let body = cloud.get("/api/telemetry/series?prefix=kulkas-1/temperature").await?.expect(200)?;
            let latest = body["series"][0]["latest"]["value"].as_f64();
            Ok(when(latest.is_some_and(|value| (value - 4.5).abs() < 0.1)))
        })
        .await?;
        pi.signal(nix::sys::signal::Signal::SIGTERM);
        pi.wait(Duration::from_secs(10))?;
        println!("{}", String::from_utf8_lossy(&std::fs::read(stand.log("pi"))?));
        Ok(())
    })
}

/// Makes it so warm at the sensor, in thousandths of a degree.
fn warm(qmp: &Path, millidegrees: i32) -> Result<()> {
    let socket = UnixStream::connect(qmp)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut answers = BufReader::new(socket.try_clone()?).lines();
    let mut tell = &socket;
    let set = serde_json::json!({ "execute": "qom-set", "arguments": {
        "path": "/machine/peripheral/kulkas", "property": "temperature", "value": millidegrees } });
    for command in [serde_json::json!({ "execute": "qmp_capabilities" }), set] {
        writeln!(tell, "{command}")?;
        let answer = answers.find(|line| line.as_ref().map_or(true, |line| !line.contains("\"QMP\"")));
        let answer = answer.context("QEMU hung up")??;
        ensure!(answer.contains("return"), "QEMU: {answer}");
    }
    Ok(())
}
