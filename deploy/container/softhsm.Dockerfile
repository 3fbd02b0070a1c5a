# xksd with SoftHSM2 and what sets it up: for tests and for trying out, never for keys that matter.
#
#     docker build -t xksd-softhsm --build-arg XKSD=xksd -f deploy/container/softhsm.Dockerfile .

# The image that the Dockerfile beside this one makes.
ARG XKSD=xksd
# A Debian or Ubuntu whose C library is no older than that of XKSD's builder. SoftHSM2, openssl and
# curl are installed if they are missing.
ARG BASE=debian:12-slim

FROM ${XKSD} AS xksd

FROM ${BASE}
COPY --from=xksd /usr/bin/xksd /usr/bin/xksd
COPY --from=xksd /usr/share/doc/xksd /usr/share/doc/xksd
COPY softhsm-setup /usr/share/xksd/softhsm-setup
COPY deploy/container/softhsm-start.sh /usr/share/xksd/start
RUN /usr/share/xksd/softhsm-setup/install-packages.sh --for run && \
    rm -rf /var/lib/apt/lists/* && \
    install -d -m 700 -o 65532 -g 65532 /srv/xks
# Token, keys, certificates, credentials, configuration: a volume, or they go with the container.
WORKDIR /srv/xks
ENV XKSD_CONFIG=/srv/xks/xksd.toml
USER 65532:65532
EXPOSE 8443 9443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/bin/xksd", "probe", "livez"]
ENTRYPOINT ["/usr/share/xksd/start"]
CMD ["serve"]
