/* Search in pages that are opened from disk: browsers start no worker there, so the worker's script runs in a hidden frame.
 *
 * In: the address of a worker's script. Out: an object with the part of the interface of Worker that the theme's search uses.
 * The theme recognises the class by its name, and mkdocs' offline plugin recognises this file by its.
 */
(() => {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const scope = this.frame.contentWindow;
      scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      scope.importScripts = (...urls) => urls.reduce((before, each) => before.then(() => load(scope, each)), Promise.resolve());
      load(scope, url).then(
        () => {
          const messages = this.waiting;
          this.waiting = null;
          messages.forEach((data) => this.postMessage(data));
        },
        () => this.dispatchEvent(new ErrorEvent("error", { message: `${url} cannot be loaded` })),
      );
    }

    postMessage(data) {
      if (this.waiting) {
        this.waiting.push(data);
      } else {
        const scope = this.frame.contentWindow;
        scope.dispatchEvent(new scope.MessageEvent("message", { data }));
      }
    }

    terminate() {
      this.frame.remove();
    }
  }

  function load(scope, url) {
    return new Promise((done, failed) => {
      const script = scope.document.createElement("script");
      script.src = new URL(url, document.baseURI).href;
      script.onload = done;
      script.onerror = failed;
      scope.document.head.append(script);
    });
  }

  if (location.protocol === "file:") {
    window.IFrameWorker = IFrameWorker;
    window.Worker = IFrameWorker;
  }
})();
