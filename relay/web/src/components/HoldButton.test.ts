// @vitest-environment happy-dom
import { mount } from "@vue/test-utils";
import { createPinia, setActivePinia } from "pinia";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { i18n } from "@/i18n";
import { useDialogs } from "@/stores/dialogs";

import HoldButton from "./HoldButton.vue";

function button(props: { mustHold: boolean; disabled?: boolean }) {
  const wrapper = mount(HoldButton, {
    props: { question: "Really?", ...props },
    global: { plugins: [i18n] },
    slots: { default: "Allow" },
  });
  return { wrapper, acts: () => wrapper.emitted("act")?.length ?? 0 };
}

describe("a button that may have to be held", () => {
  beforeEach(() => {
    setActivePinia(createPinia());
    vi.useFakeTimers();
  });
  afterEach(() => vi.useRealTimers());

  it("acts after 0.8 s of holding, and not before", async () => {
    const { wrapper, acts } = button({ mustHold: true });
    await wrapper.trigger("pointerdown", { button: 0 });
    vi.advanceTimersByTime(799);
    expect(acts()).toBe(0);
    vi.advanceTimersByTime(1);
    expect(acts()).toBe(1);
    await wrapper.trigger("pointerup");
    await wrapper.trigger("click", { detail: 1 });
    vi.advanceTimersByTime(5_000);
    expect(acts()).toBe(1);
  });

  it("does nothing when it is let go, left, or loses the focus in between", async () => {
    for (const event of ["pointerup", "pointerleave", "pointercancel", "blur"]) {
      const { wrapper, acts } = button({ mustHold: true });
      await wrapper.trigger("pointerdown", { button: 0 });
      vi.advanceTimersByTime(700);
      await wrapper.trigger(event);
      await wrapper.trigger("click", { detail: 1 });
      vi.advanceTimersByTime(5_000);
      expect(acts(), event).toBe(0);
    }
  });

  it("takes a key that is held, and no key that repeats", async () => {
    const { wrapper, acts } = button({ mustHold: true });
    await wrapper.trigger("keydown", { key: "Enter" });
    vi.advanceTimersByTime(400);
    await wrapper.trigger("keydown", { key: "Enter", repeat: true });
    vi.advanceTimersByTime(400);
    expect(acts()).toBe(1);
    await wrapper.trigger("keyup", { key: "Enter" });
    await wrapper.trigger("keydown", { key: "Enter", repeat: true });
    vi.advanceTimersByTime(2_000);
    expect(acts()).toBe(1);
  });

  it("asks those who cannot hold", async () => {
    const { wrapper, acts } = button({ mustHold: true });
    const dialogs = useDialogs();
    await wrapper.trigger("click", { detail: 0 });
    expect(dialogs.question?.title).toBe("Really?");
    expect(acts()).toBe(0);
    dialogs.settle("yes");
    // The answer passes through a few promises.
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    expect(acts()).toBe(1);
  });

  it("acts at once where nothing has to be held, and never when it is off", async () => {
    const quick = button({ mustHold: false });
    await quick.wrapper.trigger("pointerdown", { button: 0 });
    expect(quick.acts()).toBe(0);
    await quick.wrapper.trigger("click", { detail: 1 });
    expect(quick.acts()).toBe(1);
    const off = button({ mustHold: true, disabled: true });
    await off.wrapper.trigger("pointerdown", { button: 0 });
    vi.advanceTimersByTime(5_000);
    expect(off.acts()).toBe(0);
  });
});
