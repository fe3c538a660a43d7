/* How a file goes to the webserver, or into the bucket: whole, or in parts of which each is sent again if it is cut off;
   and how what was cut off is done again. */
(() => {
  const { fetch: ask, token } = window.Console;
  const AT_ONCE = 3;
  const TRIES = 8;
  const LONGEST_PAUSE = 30; // seconds; all pauses between these tries together are about a minute and a half

  /** Sends a body and tells how much of it has gone, which fetch does not; answers with the request. */
  function put(method, address, headers, body, signal, tell) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open(method, address);
      Object.entries(headers).forEach(([name, value]) => request.setRequestHeader(name, value));
      request.upload.addEventListener("progress", (event) => tell(event.loaded));
      ["error", "abort"].forEach((name) => request.addEventListener(name, () => reject(new Error(name))));
      request.addEventListener("load", () => resolve(request));
      const stop = () => request.abort();
      signal.addEventListener("abort", stop);
      request.addEventListener("loadend", () => signal.removeEventListener("abort", stop));
      request.send(body);
    });
  }

  async function toBucket(address, body, signal, tell) {
    const request = await put("PUT", address, {}, body, signal, tell);
    if (request.status >= 300) throw new Error(request.status);
  }

  /** Ends sooner if it is called off. */
  const pause = (seconds, signal) => new Promise((resolve) => {
    setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", resolve);
  });

  /** Does something again until it works, is called off, or has failed too often; `failed` hears of each failure. */
  async function again(attempt, signal, failed) {
    for (let tried = 1; ; tried += 1) {
      try {
        return await attempt();
      } catch (error) {
        if (signal.aborted || tried === TRIES) throw error;
        failed(error);
        await pause(Math.min(2 ** (tried - 1), LONGEST_PAUSE), signal);
      }
    }
  }

  /** Sends a file in parts, a few at once. Each part is tried anew, by a new address, before it is given up. */
  async function putParts(file, place, signal, tell) {
    const count = Math.ceil(file.size / place.part_bytes);
    const gone = new Array(count).fill(0); // bytes of each part
    const left = [...gone.keys()];
    const all = new AbortController();
    signal.addEventListener("abort", () => all.abort());

    async function one(index) {
      const part = file.slice(index * place.part_bytes, (index + 1) * place.part_bytes);
      await again(async () => {
        const { put: address } = await ask(`${place.part}?number=${index + 1}`, { signal: all.signal });
        await toBucket(address, part, all.signal, (loaded) => {
          gone[index] = loaded;
          tell(gone.reduce((sum, bytes) => sum + bytes, 0));
        });
      }, all.signal, () => { gone[index] = 0; });
    }

    async function some() {
      while (left.length) {
        if (all.signal.aborted) throw new Error("abort");
        await one(left.shift());
      }
    }
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, some));
    } catch (error) {
      all.abort();
      throw error;
    }
  }

  /** Deletes the parts that have come; also when the page is being left. */
  const giveUp = (place) => fetch(place.give_up, { method: "POST", keepalive: true, headers: { "X-CSRFToken": token } });

  window.Sending = { again, put, putParts, toBucket, giveUp };
})();
