# cobalance as an image: the binary, CA roots, a place for slow uploads, and nothing else; no shell.
#
#   docker build -t cobalance .
#   docker run -p 80:8080 -v ./cobalance.toml:/etc/cobalance/cobalance.toml:ro cobalance

FROM rust:1.95-bookworm AS build
# The C library is linked in, so that the final image needs none.
RUN apt-get update \
 && apt-get install -y --no-install-recommends musl-tools ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY Cargo.toml Cargo.lock README.md ./
COPY src src
COPY benches benches
RUN cargo build --release --locked --bin cobalance --target "$(uname -m)-unknown-linux-musl" \
 && install -D "target/$(uname -m)-unknown-linux-musl/release/cobalance" /image/usr/bin/cobalance \
 && install -D /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
 && install -d -m 1777 /image/tmp

FROM scratch
COPY --from=build /image /
# Nobody: numeric, because there is no /etc/passwd. Ports below 1024 are opened by Docker's default
# sysctl (net.ipv4.ip_unprivileged_port_start=0), or map them: -p 80:8080.
USER 65532:65532
ENV COBALANCE_CONFIG=/etc/cobalance/cobalance.toml
# Asks the admin listener of the same container, wherever the configuration puts it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["/usr/bin/cobalance", "health"]
# SIGTERM drains; docker stop's 10 s are shorter than `shutdown_timeout`: use `--stop-timeout 30`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/cobalance"]
CMD ["run"]
