# Packages the static binary that `integration/run build` makes; the context is the folder the binary is in.
FROM scratch
COPY --chmod=755 rbuild /rbuild
ENTRYPOINT ["/rbuild"]
