// The audio thread: samples become chunks of 16-bit PCM, a tenth of a second each.

/**
 * Posts `{pcm: ArrayBuffer, peak: number, at: number}` for each chunk: little-endian samples, the highest amplitude from
 * 0 to 1, and the time of the clock in milliseconds at its end. Without input it goes on with silence, so that times
 * stay true while a microphone is unplugged. On the message "finish" it posts the incomplete last chunk, with
 * `last: true`, and ends.
 */
class Collector extends AudioWorkletProcessor {
  constructor() {
    super();
    this.start();
    this.running = true;
    this.port.onmessage = () => {
      this.running = false;
      this.post(true);
    };
  }

  start() {
    this.view = new DataView(new ArrayBuffer(2 * Math.round(sampleRate / 10)));
    this.bytes = 0;
    this.peak = 0;
  }

  post(last) {
    const pcm = this.view.buffer.slice(0, this.bytes);
    this.port.postMessage({ pcm, peak: this.peak, at: Date.now(), last }, [pcm]);
    this.start();
  }

  process([[samples]], [[output]]) {
    const length = samples?.length ?? output?.length ?? 128;
    for (let index = 0; this.running && index < length; index += 1) {
      const sample = Math.max(-1, Math.min(1, samples?.[index] ?? 0));
      this.view.setInt16(this.bytes, Math.round(sample * 32767), true);
      this.bytes += 2;
      this.peak = Math.max(this.peak, Math.abs(sample));
      if (this.bytes === this.view.byteLength) this.post(false);
    }
    return this.running;
  }
}

registerProcessor("collector", Collector);
