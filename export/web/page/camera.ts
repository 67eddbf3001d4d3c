import { Refused } from "./ask.js";

/**
 * Opens the camera and gives its frames to `use`, the next one only once the last was answered: frames that come
 * meanwhile are passed over, so that the answer is always of what is in front of the camera now.
 */
export async function frames(
  video: HTMLVideoElement,
  use: (frame: ImageBitmap) => Promise<void>,
  failed: (error: unknown) => void,
): Promise<() => void> {
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    const { name, message } = error as DOMException;
    throw new Refused({
      message: `the camera cannot be opened: ${message || name}`,
      remedy: name === "NotAllowedError" ? "allow this page the camera in the browser's settings" : "connect a camera that no other program uses",
    });
  }
  let stopped = false;
  const stop = () => {
    stopped = true;
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
  video.srcObject = stream;
  stream.getVideoTracks()[0].addEventListener("ended", () => {
    if (!stopped) failed(new Refused({ message: "the camera has gone", remedy: "connect it again" }));
  });
  await video.play();
  void (async () => {
    try {
      while (!stopped) {
        await nextFrame(video);
        if (stopped) return;
        await use(await createImageBitmap(video, { colorSpaceConversion: "none", premultiplyAlpha: "none" }));
      }
    } catch (error) {
      if (!stopped) failed(error);
    }
  })();
  return stop;
}

function nextFrame(video: HTMLVideoElement): Promise<unknown> {
  // Older browsers do not say when a frame is there; the next one that is drawn is as good.
  return new Promise((done) => ("requestVideoFrameCallback" in video ? video.requestVideoFrameCallback(done) : requestAnimationFrame(done)));
}
