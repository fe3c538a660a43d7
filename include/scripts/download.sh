#!/usr/bin/env bash
# Fetches files from FTP and HTTP servers, each whole or not at all; a broken transfer goes on where it stopped.
#
#   download.sh LIST        one file a line: URL, a tab, and the path to write it to
#
# Whole files get the path's name; what is not whole yet is called PATH.part, and is resumed by the next call. Beside
# them lie PATH.headers (what the server said) and PATH.attempts. Exits with 1 if a file could not be had.
#
# From the environment:
#   CURL_CONFIG      a file with curl's own options: credentials, TLS. Never on the command line, where others see them
#   ATTEMPTS         how often a transfer is begun or resumed (5)
#   PAUSE            seconds before it is resumed, doubled each time (2)
#   SSL_CERT_FILE    whom to trust, for servers with a certificate of a private authority
#   STALL            seconds without a byte after which a transfer counts as broken (60)
set -u -o pipefail
command -v curl >/dev/null || { echo "curl is not installed here: add a line 'curl' to packages.txt" >&2; exit 1; }

attempts=${ATTEMPTS:-5} pause=${PAUSE:-2} stall=${STALL:-60}
options=(
    --silent --show-error --fail --globoff --location --proto-redir '=http,https'
    --connect-timeout 20 --speed-limit 1 --speed-time "$stall"
    # Passive mode; a server behind NAT may tell a private address in answer to PASV: the control connection's counts.
    --ftp-pasv --ftp-skip-pasv-ip
    --remote-time
)
# Python's variable for a private authority; said outright, for a .curlrc or curl's own variable would win over it.
[[ -n ${SSL_CERT_FILE:-} ]] && options+=(--cacert "$SSL_CERT_FILE")

# What the server said that it tells contents apart by.
validator_of() {
    [[ -s $1 ]] && { sed -n 's/^[Ee][Tt][Aa][Gg]: *//p' "$1"; sed -n 's/^[Ll]ast-[Mm]odified: *//p' "$1"; } |
        tr -d '\r' | grep -m 1 .
}

fetch() {
    local url=$1 path=$2 wait=$pause attempt code validator
    [[ -e $path ]] && return 0
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        resuming=()
        if [[ -s $path.part ]] && validator=$(validator_of "$path.headers"); then
            # Another content by now: the server then sends all of it, and curl begins anew (33).
            resuming=(--header "If-Range: $validator")
        fi
        curl "${options[@]}" "${resuming[@]}" --config "${CURL_CONFIG:-/dev/null}" --continue-at - \
            --dump-header "$path.headers" --output "$path.part" --url "$url"
        code=$?
        case $code in
            0)
                [[ -e $path.part ]] || : >"$path.part" # an empty file
                echo "$attempt" >"$path.attempts"
                mv "$path.part" "$path"
                return 0
                ;;
            # It cannot be resumed there: 33 and 36 say so, 22 with a part may be 416 (all of it is here, or another file).
            33 | 36) rm -f "$path.part" ;;
            22) [[ -e $path.part ]] && rm -f "$path.part" || { grep -qE '^HTTP/[0-9.]+ (408|429|5..)' "$path.headers" || break; } ;;
            # Login denied, no such file, unknown host's key or certificate: no later attempt changes that.
            9 | 51 | 60 | 67 | 78) break ;;
        esac
        if ((attempt < attempts)); then
            echo "$url: broken off (curl $code) after $(stat -c %s "$path.part" 2>/dev/null || echo 0) bytes; resumed in ${wait} s"
            sleep "$wait"
            wait=$((wait * 2 > 60 ? 60 : wait * 2))
        fi
    done
    echo "$url: could not be fetched (curl $code)" >&2
    return 1
}

failed=0
while IFS=$'\t' read -r url path; do
    fetch "$url" "$path" || failed=1
done <"$1"
exit $failed
