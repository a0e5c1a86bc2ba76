/**
 * Whether this browser draws WebGL with a graphics processor. Emulated on the CPU (virtual machines, remote desktops,
 * blocked drivers) it is no help but a harm: a flood then keeps two cores busy with pixels, and every picture holds
 * the page up until they are done (100 to 500 ms, measured with SwiftShader, against 5 to 80 ms without WebGL).
 */

/** Names of renderers that emulate, for browsers that do not count them as a performance caveat. */
const EMULATED = /swiftshader|llvmpipe|softpipe|software|basic render/i;

let isFast: boolean | undefined;

/** True if WebGL is worth using. Asked once: a context costs some milliseconds. */
export function hasGraphics(): boolean {
  isFast ??= ask();
  return isFast;
}

function ask(): boolean {
  try {
    const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
    if (!gl) return false;
    const info = gl.getExtension("WEBGL_debug_renderer_info");
    const name = String(gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
    // A page may have few contexts at a time.
    gl.getExtension("WEBGL_lose_context")?.loseContext();
    return !EMULATED.test(name);
  } catch {
    return false;
  }
}
