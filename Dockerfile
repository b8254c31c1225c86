# countem in a static binary, without a shell beside it.
#
#   docker build -t countem .
#   docker run -p 127.0.0.1:7070:7070 -v countem:/var/lib/countem countem
#
# The image serves every address of its container, which only a published port opens. It needs tokens and TLS for that, or
# `--insecure`, which its command says because of the port above; replace the command where others reach the port.
FROM rust:1.89-alpine3.22 AS build
WORKDIR /source
COPY . .
# Alpine's own target is static and has musl, for which the binary brings another allocator.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --package countem-cli \
    && install -D target/release/countem /image/usr/bin/countem \
    && mkdir -p /image/var/lib/countem

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /image/usr/bin/countem /usr/bin/countem
COPY --from=build --chown=65532:65532 /image/var/lib/countem /var/lib/countem
# The store `countem.db` and the journal are here, unless the configuration says otherwise.
WORKDIR /var/lib/countem
VOLUME ["/var/lib/countem"]
ENV COUNTEM__SERVER__LISTEN=0.0.0.0:7070
EXPOSE 7070
USER 65532:65532
STOPSIGNAL SIGTERM
# The program itself asks, because nothing else is here.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/bin/countem", "health"]
ENTRYPOINT ["/usr/bin/countem"]
CMD ["serve", "--insecure"]
